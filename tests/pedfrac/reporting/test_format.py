"""Counts, shares, p values and names as pages write them, and that all pages write them alike."""

import math

import pytest

from pedfrac.reporting.format import (
    FILTERS,
    called,
    capital,
    count,
    listed,
    metric,
    p_value,
    percent,
    percents,
    plural,
    share,
    yes_no,
)
from pedfrac.reporting.page import page_environment
from pedfrac.reporting.statements import environment


def spaced(text):
    """Return a text with plain spaces; refuse one that could be broken across lines."""
    assert " " not in text
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("value", "whole", "three"),
    [
        (0, "0 %", "0 %"),
        (1, "100 %", "100 %"),
        (0.004, "<1 %", "0.4 %"),
        (0.9996, ">99 %", ">99.9 %"),
        (0.997, ">99 %", "99.7 %"),
        (0.5034, "50 %", "50.3 %"),
        (0.05, "5 %", "5 %"),
    ],
)
def test_only_exact_shares_are_none_or_all(value, whole, three):
    assert (spaced(percent(value)), spaced(percent(value, 3))) == (whole, three)


@pytest.mark.parametrize("value", [None, math.nan])
def test_an_unknown_share_is_a_dash(value):
    assert percent(value) == percent(value, 3) == "–"


def test_a_share_of_nothing_is_unknown():
    assert share(0, 0) == "–"
    assert [spaced(share(part, 1000)) for part in (0, 1, 250, 999, 1000)] == [
        "0 %",
        "<1 %",
        "25 %",
        ">99 %",
        "100 %",
    ]


def test_bounds_of_a_share_have_one_sign():
    assert spaced(percents(0.876, 0.968)) == "88–97 %"
    assert spaced(percents(0.0, 1.0)) == "0–100 %"
    assert spaced(percents(0.001, 0.999)) == "<1–>99 %"


def test_counts_have_commas_and_one_thing_no_s():
    assert [count(n) for n in (0, 999, 20327)] == ["0", "999", "20,327"]
    assert [spaced(plural(n, "image")) for n in (0, 1, 2, 20327)] == [
        "0 images",
        "1 image",
        "2 images",
        "20,327 images",
    ]


def test_small_p_values_are_less_than_a_thousandth():
    assert [p_value(p) for p in (0, 0.00099, 0.001, 0.0494, 1)] == [
        "<0.001",
        "<0.001",
        "0.001",
        "0.049",
        "1.000",
    ]


def test_lists_read_as_sentences():
    assert [listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_truth_values_are_words_and_capitals_leave_the_rest():
    assert (yes_no(True), yes_no(False)) == ("yes", "no")
    assert (capital("age of AO"), capital("")) == ("Age of AO", "")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("1.5-5y", "1.5–5 years"),
        ("10-15y, girls", "10–15 years, girls"),
        ("all", "all ages"),
        ("age", "age classifier"),
        ("follow-up", "follow-up"),
        ("23r-M/2.1", "23r-M/2.1"),
    ],
)
def test_age_groups_are_called_as_people_write_them(name, words):
    assert called(name).replace("\N{NO-BREAK SPACE}", " ") == words


def test_metrics_are_named_as_the_field_writes_them():
    names = ("auroc", "average_precision", "f1", "iou", "observed_expected", "auroc_change")
    assert [metric(name) for name in names] == [
        "AUROC",
        "average precision",
        "F1",
        "IoU",
        "observed to expected fractures",
        "AUROC change",
    ]


SAMPLES = {
    "number": 0.934,
    "bounds": {"value": 0.1, "low": -0.2, "high": 0.4},
    "interval": {"value": 0.1, "low": -0.2, "high": 0.4},
    "difference": {"value": 0.1, "low": -0.2, "high": 0.4},
    "count": 20327,
    "percent": 0.5,
    "p_value": 0.02,
    "yes_no": True,
    "listed": ["a", "b"],
    "capital": "a",
    "called": "1.5-5y",
    "metric": "auroc",
}


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_pages_in_html_and_markdown_write_alike(name):
    value = SAMPLES[name]
    in_html = page_environment().from_string(f"{{{{ value | {name} }}}}").render(value=value)
    in_markdown = environment({"config": {}}).filters[name](value)
    assert in_html == FILTERS[name](value)
    assert in_markdown == in_html.replace("\N{NO-BREAK SPACE}", " ")


def test_what_could_be_markup_is_escaped_in_html():
    reason = {"value": None, "low": None, "high": None, "reason": "<b>|"}
    made = page_environment().from_string("{{ one | interval }} {{ p | p_value }}")
    assert made.render(one=reason, p=0) == "– (&lt;b&gt;|) &lt;0.001"
