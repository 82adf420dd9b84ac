"""Every item of both checklists stands there once, answered by the run or left to the authors."""

import re

import pytest
from jinja2 import UndefinedError
from made_findings import make_config, make_findings
from rendered import assert_whole, table, tables

from pedfrac.reporting.checklist import GUIDELINES, fill, read_guideline, write_checklist

LETTERS = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef"}
LETTERS |= {20: "abc", 23: "ab", 27: "abc"}
NUMBERS = {
    "CLAIM 2024": [str(n) for n in range(1, 45)],
    "TRIPOD+AI": [f"{n}{part}" for n in range(1, 28) for part in LETTERS.get(n, [""])],
}
NEVER_THE_RUNS = {  # what no run can know
    "CLAIM 2024": {"2", "3", "4", "11", "13", "15", "16", "18", "34", "41", "44"},
    "TRIPOD+AI": {"2", "3a", "3c", "5b", "6a", "8b", "8c", "17", "18a", "18b", "18c", "18d", "19"},
}


@pytest.fixture(scope="module")
def found():
    return make_findings(600)


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "new" / "checklist.md"
    write_checklist(path, found)
    return path.read_text(encoding="utf-8")


def published(found):
    """Return the findings with the counts of GRAZPEDWRI-DX."""
    counts = {"usable": 20327, "patients": 6091, "studies": 10699, "fractured": 13550}
    return found | {"records": found["records"] | counts}


def answered(found):
    """Return the numbers of the items that a run answers, by checklist."""
    filled = [fill(read_guideline(name), found) for name in GUIDELINES]
    return {one.name: {row.number for row in one.rows if row.answer} for one in filled}


def test_every_item_appears_once_and_in_order(page):
    assert_whole(page)
    for name, numbers in NUMBERS.items():
        chapter = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        shown = [row[0] for _, rows in tables(chapter) for row in rows[1:]]
        assert shown == numbers
    assert len(NUMBERS["TRIPOD+AI"]) == 52


def test_items_say_who_answers_them_and_the_top_counts_them(page):
    for row in table(page, "Checklists: CLAIM 2024 and TRIPOD+AI")[1:]:
        chapter = page.split(f"\n## {row[0]}\n")[1].split("\n## ")[0]
        answers = [cells[2] for _, rows in tables(chapter) for cells in rows[1:]]
        left = sum(answer == "for the authors" for answer in answers)
        partly = sum("For the authors: " in answer for answer in answers)
        assert all(answers)
        assert 0 < left < len(answers)
        assert row[1:] == [f"{len(answers) - left} of {len(answers)}", str(partly), str(left)]
        assert f"**{row[1]} filled from the run.**" in chapter


def test_what_no_run_can_know_is_left_to_the_authors(found):
    for data in (found, published(found)):
        for name, numbers in answered(data).items():
            assert not numbers & NEVER_THE_RUNS[name]


def test_the_published_data_set_answers_for_its_source(found):
    for name, more in {"CLAIM 2024": {"5", "7", "43"}, "TRIPOD+AI": {"5a", "18e"}}.items():
        assert answered(published(found))[name] - answered(found)[name] == more


def test_answers_are_the_findings_metrics(found, page):
    test = found["split"]["parts"]["test"]
    counts = f"test: {test['images']} images of {test['patients']} patients"
    assert counts in page
    (missed, hit) = found["groups"][0]["models"]["bundle"]["confusion"][1]
    assert f"{missed} of {missed + hit} fractured test images were called normal" in page
    area = found["groups"][0]["models"]["bundle"]["auroc"]
    written = f"AUROC {area['value']:.2f} ({area['low']:.2f}–{area['high']:.2f})"
    assert page.count(written) >= 3
    shared = found["split"]["disjoint"]["shared"].values()
    assert not any(shared)
    assert "no patient is in two parts" in page


def test_without_intervals_and_other_analyses_every_template_still_renders(tmp_path):
    config = make_config(evaluation={"resamples": 0})
    bare = make_findings(300, config, fractured=False) | {"explanation": {}, "provenance": {}}
    write_checklist(tmp_path / "checklist.md", bare)
    page = (tmp_path / "checklist.md").read_text(encoding="utf-8")
    assert_whole(page)
    assert "31" not in answered(bare)["CLAIM 2024"]
    assert "sensitivity – (no fractured images)" in page


def test_findings_that_lack_a_name_are_an_error_not_a_gap(found):
    lacking = {name: value for name, value in found.items() if name != "operating"}
    with pytest.raises(UndefinedError, match="operating"):
        fill(read_guideline("tripod_ai.yaml"), lacking)


@pytest.mark.parametrize("name", GUIDELINES)
def test_items_ask_in_short_words_of_our_own(name):
    guideline = read_guideline(name)
    assert [item.number for item in guideline.items] == NUMBERS[guideline.name]
    for item in guideline.items:
        assert 0 < len(item.asks) < 70
    assert re.search(r"doi:10\.\d{4}/\S+$", guideline.source)
