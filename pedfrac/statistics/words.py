"""Intervals in words."""

from pedfrac.statistics.intervals import Interval


def interval_in_words(interval: Interval) -> str:
    """Return an interval as ``0.93 (0.88–0.97)``, with the reason where a part is missing."""
    if interval.value is None:
        return f"– ({interval.reason})"
    value = f"{interval.value:.2f}"
    if interval.bounds:
        return f"{value} ({interval.low:.2f}–{interval.high:.2f})"
    return f"{value} ({interval.reason})" if interval.reason else value
