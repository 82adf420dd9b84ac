"""Numbers and intervals as text, alike in tables, messages and pages.

It stands on the lowest floor, because results hold such text, too. Not here: counts, shares and
names (``pedfrac.reporting.format``).
"""

import math
from collections.abc import Mapping
from typing import Any

from pedfrac.statistics.intervals import Interval

Metric = Interval | Mapping[str, Any]  # as computed, or as read from JSON
MISSING = "–"


def number_in_words(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """Return a number with ``digits`` decimals, a large one with fewer: 0.93, 12.3, 343,056.

    ``sign``: put a plus before what is shown to be above 0. What rounds to 0 has no sign. A missing
    value and NaN are ``–``.
    """
    if value is None or math.isnan(value):
        return MISSING
    size = abs(value)
    decimals = digits if size < 10 else min(digits, 1) if size < 1000 else 0
    text = f"{size:.1e}" if size >= 1e6 else f"{size:,.{decimals}f}"
    if not text.strip("0.,"):
        return text
    before = "−" if value < 0 else "+" if sign else ""
    return before + text.replace("inf", "∞")


def bounds_in_words(metric: Metric, digits: int = 2, sign: bool = False) -> str:
    """Return low and high as ``0.88–0.97``, with signs as ``−0.02 to +0.04``; missing ones: ""."""
    low, high = (_part(metric, end) for end in ("low", "high"))
    if low is None or high is None:
        return ""
    texts = [number_in_words(bound, digits, sign) for bound in (low, high)]
    return (" to " if sign or "−" in texts[0] else "–").join(texts)


def interval_in_words(metric: Metric, digits: int = 2, sign: bool = False) -> str:
    """Return a metric as ``0.93 (0.88–0.97)``, with the reason where a part of it is missing."""
    value, reason = _part(metric, "value"), _part(metric, "reason")
    if value is None:
        return f"{MISSING} ({reason or 'not available'})"
    bounds = bounds_in_words(metric, digits, sign)
    return f"{number_in_words(value, digits, sign)} ({bounds or reason or 'no interval'})"


def difference_in_words(metric: Metric, digits: int = 3) -> str:
    """Return a difference with its signs, as ``+0.012 (−0.003 to +0.027)``."""
    return interval_in_words(metric, digits, sign=True)


def _part(metric: Metric, name: str) -> Any:
    return metric.get(name) if isinstance(metric, Mapping) else getattr(metric, name)
