"""Metrics whose names nobody knows beforehand become tables, and none is lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pedfrac.reporting.tables import Table, facts_of, is_interval, notes_of, table_of, tables_of

INTERVAL = {"value": 0.5, "low": 0.4, "high": 0.6}
CHANGE = {"value": -0.1, "low": -0.2, "high": 0.0}

numbers = st.floats(0, 1)
names = st.text("abcdefg", min_size=1, max_size=4)
intervals = st.builds(lambda value: {"value": value, "low": 0.0, "high": 1.0}, numbers)
blocks = st.recursive(
    intervals | st.integers() | st.none() | st.booleans(),
    lambda inner: (
        st.dictionaries(names, inner, max_size=4)
        | st.lists(st.dictionaries(names, intervals | st.integers(), min_size=1), max_size=3)
    ),
    max_leaves=12,
)


def each_interval(tree):
    if is_interval(tree):
        yield tree
    elif isinstance(tree, dict):
        for branch in tree.values():
            yield from each_interval(branch)
    elif isinstance(tree, list):
        for branch in tree:
            yield from each_interval(branch)


@settings(max_examples=60)
@given(st.dictionaries(names, blocks, max_size=5))
def test_no_interval_is_lost_and_rows_have_a_cell_for_each_column(block):
    tables = tables_of("made up", block)
    cells = [
        id(cell) for table in tables for row in table.rows for cell in row if is_interval(cell)
    ]
    assert sorted(cells) == sorted(map(id, each_interval(block)))
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert len({table.caption for table in tables}) == len(tables)


def test_parts_alike_are_rows_of_one_table():
    block = {
        "images": 9,
        "bones hidden": {"auroc": INTERVAL, "images": 9, "verdict": "not shown"},
        "marker region only": {"auroc": INTERVAL, "images": 9, "verdict": "suspected"},
        "note": "how",
    }
    assert tables_of("Shortcuts", block) == [
        Table(
            "Shortcuts: each part",
            ["part", "images", "AUROC", "verdict"],
            [
                ["bones hidden", 9, INTERVAL, "not shown"],
                ["marker region only", 9, INTERVAL, "suspected"],
            ],
        )
    ]


def test_lists_are_tables_with_what_a_reader_looks_for_first():
    rows = [{"auroc": INTERVAL, "change": {"auroc": CHANGE}, "name": "blur", "strength": 2}]
    (table,) = tables_of("Disturbed", {"perturbations": rows})
    assert table.caption == "Disturbed: perturbations"
    assert table.columns == ["name", "strength", "AUROC", "change AUROC"]
    assert table.rows == [["blur", 2, INTERVAL, CHANGE]]


def test_what_a_row_lacks_is_empty():
    table = table_of("", [{"a": 1}, {"b": "x"}], ())
    assert table.rows == [[1, None], [None, "x"]]
    assert table.texts == ["b"]


@pytest.mark.parametrize("nothing", (None, {}, {"a": None}, {"a": []}, {"a": {}}))
def test_nothing_is_no_table(nothing):
    assert tables_of("x", nothing) == []


def test_counts_and_words_stand_in_a_sentence():
    block = {"verdict": "not shown", "patients": 1200, "images": 2, "done": True, "note": "n"}
    assert facts_of(block) == ["images 2", "patients 1,200", "done yes", "verdict not shown"]


def test_each_note_is_told_once():
    block = {"note": "first", "a": {"note": "second"}, "b": [{"note": "second"}, {"c": 1}]}
    assert notes_of(block) == ["first", "second"]
