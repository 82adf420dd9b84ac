"""Metrics and names in words."""

import pytest

from pedfrac.reporting.statements import environment

WORDS = environment({"config": {}}).filters


@pytest.mark.parametrize(
    ("value", "low", "high", "written"),
    [
        (0.931, 0.88, 0.97, "0.93 (0.88–0.97)"),
        (0.01, -0.657, 0.67, "0.01 (−0.66 to 0.67)"),
        (-0.001, -0.002, 0.001, "0.00 (0.00–0.00)"),
        (1.0, 0.0, 343055.78, "1.00 (0.00–343,056)"),
    ],
)
def test_an_interval_has_two_decimals_and_true_minus_signs(value, low, high, written):
    assert WORDS["interval"]({"value": value, "low": low, "high": high}) == written


@pytest.mark.parametrize(
    ("interval", "written"),
    [
        ({"value": None, "low": None, "high": None, "reason": "no images"}, "– (no images)"),
        ({"value": 0.5, "low": None, "high": None, "reason": "one patient"}, "0.50 (one patient)"),
        ({"value": 0.5, "low": None, "high": None, "reason": None}, "0.50 (no interval)"),
        ({"value": 0.5, "low": None, "high": None}, "0.50 (no interval)"),
    ],
)
def test_what_is_missing_of_an_interval_has_its_reason(interval, written):
    assert WORDS["interval"](interval) == WORDS["signed"](interval) == written


def test_a_difference_has_its_sign():
    written = WORDS["signed"]({"value": 0.012, "low": -0.02, "high": 0.04})
    assert written == "+0.01 (−0.02 to +0.04)"


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("1.5-5y", "1.5–5 years"),
        ("10-15y, girls", "10–15 years, girls"),
        ("all", "all ages"),
        ("follow-up", "follow-up"),
        ("23r-M/2.1", "23r-M/2.1"),
    ],
)
def test_age_groups_are_called_as_people_write_them(name, called):
    assert WORDS["called"](name) == called


def test_lists_read_as_sentences():
    assert [WORDS["listed"](names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a and b",
        "a, b and c",
    ]
