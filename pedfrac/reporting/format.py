"""Format: how counts, shares, p values and names are written, as functions and Jinja filters.

Numbers and intervals are written by ``pedfrac.statistics.words``; ``FILTERS`` holds both. Texts
have no-break spaces. Not here: escaping for HTML or Markdown.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from pedfrac.statistics.words import (
    MISSING,
    bounds_in_words,
    difference_in_words,
    interval_in_words,
    number_in_words,
)

SPACE = "\N{NO-BREAK SPACE}"
LEAST_P = 0.001  # a smaller p is written as less than this
NAMES = {"all": "all ages", "age": "age classifier"}
METRICS = {"observed_expected": "observed to expected fractures"}
ABBREVIATIONS = {name: name.upper() for name in ("auroc", "ppv", "npv", "ece", "f1")}
ABBREVIATIONS["iou"] = "IoU"


def count(number: float) -> str:
    """Return a count with commas between thousands: 20,327."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """Return a count of things, as ``1 image`` or ``2,000 images``."""
    return f"{count(number)}{SPACE}{noun}{'' if number == 1 else 's'}"


def percent(share: float | None, significant: int | None = None) -> str:
    """Return a share in [0, 1] in whole per cent, or with at most ``significant`` (≤ 3) digits.

    Only exact shares are written as 0 % and 100 %; others that round to them as <1 % and >99 %.
    """
    if share is None or math.isnan(share):
        return MISSING
    return f"{_percents(share, significant)}{SPACE}%"


def percents(low: float, high: float) -> str:
    """Return the bounds of a share in whole per cent, as ``88–97 %``."""
    return f"{_percents(low)}–{percent(high)}"


def share(part: int, whole: int) -> str:
    """Return a part of a whole in whole per cent; ``–`` of nothing."""
    return percent(part / whole) if whole else MISSING


def p_value(p: float) -> str:
    """Return a p value with three decimals, or ``<0.001``."""
    return f"<{LEAST_P}" if p < LEAST_P else f"{p:.3f}"


def yes_no(value: bool) -> str:
    """Return a truth value as a word."""
    return "yes" if value else "no"


def listed(names: Sequence[str]) -> str:
    """Return names as ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def capital(text: str) -> str:
    """Return a text with a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def called(name: str) -> str:
    """Return the name of a model or group as people write it: ``1.5-5y`` is ``1.5–5 years``."""
    return re.sub(r"\b([\d.]+)-([\d.]+)y\b", rf"\1–\2{SPACE}years", NAMES.get(name, name))


def metric(name: str) -> str:
    """Return the name of a metric or field in words: ``average_precision_auroc`` with AUROC."""
    words = METRICS.get(name, name.replace("_", " ")).split(" ")
    return " ".join(ABBREVIATIONS.get(word, word) for word in words)


def _percents(share: float, significant: int | None = None) -> str:
    value = 100 * share
    text = f"{value:.{significant}g}" if significant else f"{value:.0f}"
    if value and text == "0":
        return "<1"
    return (">99.9" if significant else ">99") if value < 100 and text == "100" else text


FILTERS: dict[str, Callable[..., Any]] = {
    "number": number_in_words,
    "bounds": bounds_in_words,
    "interval": interval_in_words,
    "difference": difference_in_words,
    **{one.__name__: one for one in (count, plural, percent, percents, share, p_value)},
    **{one.__name__: one for one in (yes_no, listed, capital, called, metric)},
}
