"""What was set in the UI and what the files say, merged when deployments are made again."""

import pytest

from flows.infrastructure.kept import flat, merge, nested, record

LAST = {"parameters": {"epochs": 5, "size": 64}, "tags": ["a"], "schedules": {"w": {"cron": "0 2"}}}


def merged(files, server, before=LAST, implied=None, reset=False):
    made, told = merge(
        *("retrain", flat(files), flat(server)),
        *(None if before is None else record(flat(before)), flat(implied or {}), reset),
    )
    return nested(made), [(".".join(one.path), one.outcome) for one in told]


def test_nothing_is_told_where_nobody_touched_anything():
    assert merged(LAST, LAST) == (LAST, [])


def test_a_change_of_the_files_alone_is_deployed_without_a_word():
    files = LAST | {"parameters": {"epochs": 9, "depth": 2}}  # size is left out now
    assert merged(files, LAST) == (files, [])


def test_what_was_set_in_the_ui_is_kept():
    server = LAST | {"parameters": {"epochs": 7, "size": 64, "seed": 1}, "tags": ["a", "b"]}
    server["schedules"] = {"w": {"cron": "0 2"}, "added": {"cron": "0 5"}}
    told = ["parameters.epochs", "parameters.seed", "schedules.added.cron", "tags"]
    assert merged(LAST, server) == (server, [(one, "kept") for one in told])


def test_it_is_kept_at_every_deploying_that_follows():
    server = LAST | {"tags": ["mine"]}
    for _ in range(2):
        made, told = merged(LAST, server)
        assert (made, told) == (server, [("tags", "kept")])
        server = made


def test_what_was_deleted_in_the_ui_stays_away():
    server = {"parameters": {"epochs": 5}, "tags": ["a"]}
    made, told = merged(LAST, server)
    assert made == server
    assert told == [("parameters.size", "kept"), ("schedules.w.cron", "kept")]


def test_where_files_and_ui_changed_the_same_the_files_win_and_it_is_told():
    server, files = LAST | {"tags": ["mine"]}, LAST | {"tags": ["new"]}
    assert merged(files, server) == (files, [("tags", "overridden")])


def test_with_reset_the_files_win_everywhere():
    server = LAST | {"tags": ["mine"]}
    assert merged(LAST, server, reset=True) == (LAST, [("tags", "overridden")])


def test_defaults_that_a_form_sends_along_are_not_settings():
    server = LAST | {"parameters": {"epochs": 5, "size": 64.0, "seed": 0}}
    assert merged(LAST, server, implied={"parameters": {"seed": 0}}) == (LAST, [])


def test_what_was_deployed_by_other_means_counts_as_set_by_a_person():
    server = LAST | {"tags": ["mine"]}
    assert merged(LAST, server, before=None) == (server, [("tags", "kept")])


@pytest.mark.parametrize("fields", (10, 250))
def test_a_record_fits_into_a_variable_of_prefect(fields):
    tree = {"parameters": {f"field_{number}": "x" * 300 for number in range(fields)}}
    assert len(record(flat(tree))) < 5000
