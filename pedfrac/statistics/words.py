"""Intervals in words."""

from collections.abc import Mapping
from typing import Any


def interval_in_words(interval: Mapping[str, Any]) -> str:
    """Return an interval as ``0.93 (0.88–0.97)``, with the reason where a part is missing."""
    if interval["value"] is None:
        return f"– ({interval['reason']})"
    value = f"{interval['value']:.2f}"
    if interval["low"] is not None:
        return f"{value} ({interval['low']:.2f}–{interval['high']:.2f})"
    return f"{value} ({interval['reason']})" if "reason" in interval else value
