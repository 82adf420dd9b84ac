"""Numbers and intervals as text, computed or read from JSON."""

import math

import pytest

from pedfrac.statistics.intervals import Interval, missing
from pedfrac.statistics.words import (
    bounds_in_words,
    difference_in_words,
    interval_in_words,
    number_in_words,
)


@pytest.mark.parametrize(
    ("value", "plain", "signed"),
    [
        (0.934, "0.93", "+0.93"),
        (-0.934, "−0.93", "−0.93"),
        (0, "0.00", "0.00"),
        (0.004, "0.00", "0.00"),
        (-0.004, "0.00", "0.00"),
        (1, "1.00", "+1.00"),
        (12.34, "12.3", "+12.3"),
        (-343055.78, "−343,056", "−343,056"),
        (2.5e6, "2.5e+06", "+2.5e+06"),
        (math.inf, "∞", "+∞"),
        (-math.inf, "−∞", "−∞"),
        (math.nan, "–", "–"),
        (None, "–", "–"),
    ],
)
def test_a_number_has_a_true_minus_and_zero_has_no_sign(value, plain, signed):
    assert number_in_words(value) == plain
    assert number_in_words(value, sign=True) == signed


def test_large_numbers_have_fewer_decimals_and_never_more_than_asked_for():
    assert [number_in_words(value, 3) for value in (0.93412, 93.412, 934.12, 9341.2)] == [
        "0.934",
        "93.4",
        "934.1",
        "9,341",
    ]
    assert number_in_words(12.34, 0) == "12"


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (0.934, 0.88, 0.971, "0.93 (0.88–0.97)"),
        (1.0, 0.99, 1.0, "1.00 (0.99–1.00)"),
        (0.0, 0.0, 0.01, "0.00 (0.00–0.01)"),
        (0.01, -0.657, 0.67, "0.01 (−0.66 to 0.67)"),
        (-0.001, -0.002, 0.001, "0.00 (0.00–0.00)"),
        (1.0, 0.0, 343055.78, "1.00 (0.00–343,056)"),
    ],
)
def test_an_interval_joins_its_bounds_so_that_no_dash_meets_a_minus(value, low, high, words):
    found = Interval(value=value, low=low, high=high)
    assert interval_in_words(found) == interval_in_words(found.model_dump()) == words
    assert words.endswith(f"({bounds_in_words(found)})")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (missing("no images"), "– (no images)"),
        (Interval(value=None, low=None, high=None), "– (not available)"),
        (Interval(value=0.5, low=None, high=None, reason="one patient"), "0.50 (one patient)"),
        (Interval(value=0.5, low=None, high=None), "0.50 (no interval)"),
        ({"value": 0.5, "low": None, "high": None}, "0.50 (no interval)"),
        ({"value": 0.5, "low": 0.4, "high": None, "reason": "cut"}, "0.50 (cut)"),
    ],
)
def test_what_is_missing_of_an_interval_has_its_reason(found, words):
    assert interval_in_words(found) == words
    assert bounds_in_words(found) == ""


def test_a_difference_has_its_signs_with_and_without_bounds():
    found = Interval(value=0.012, low=-0.0204, high=0.0404)
    assert difference_in_words(found) == "+0.012 (−0.020 to +0.040)"
    same = Interval(value=0.0, low=0.0, high=0.0)
    assert difference_in_words(same) == "0.000 (0.000 to 0.000)"
    alone = Interval(value=0.5, low=None, high=None, reason="one patient")
    assert difference_in_words(alone) == "+0.500 (one patient)"
    assert difference_in_words(missing("no images")) == "– (no images)"
