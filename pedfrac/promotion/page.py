"""Gate page: a decision of the gate as a self-contained page, and as Markdown for a form.

Not here: any criterion (gate). The page needs no network and no other file.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pedfrac.promotion.decision import Criterion, Decision
from pedfrac.reporting.format import called, plural
from pedfrac.reporting.page import LOOKS, beside, page_environment
from pedfrac.statistics.intervals import Interval
from pedfrac.statistics.words import interval_in_words

TEMPLATE = "gate.html.j2"
MARKS = {
    "held": "✓ held",
    "failed": "✗ failed",
    "not known": "? not known",
    "not asked": "– not asked",
    "changed": "! changed",
}
MOST = 60  # letters of a reason in a table of Markdown


def write_page(path: Path, decision: Decision, provenance: dict[str, str]) -> None:
    """Write the page; ``provenance``: keys of what was compared. Equal input, equal bytes."""
    page = (
        page_environment()
        .get_template(TEMPLATE)
        .render(
            decision=decision,
            parts=by_part(decision.criteria),
            marks=MARKS,
            provenance=sorted(provenance.items()),
            looks=Markup(beside(LOOKS)),
        )
    )
    path.write_text(page.lstrip(), encoding="utf-8")


def by_part(criteria: Sequence[Criterion]) -> dict[str, list[Criterion]]:
    """Return criteria by what they are about, in their order."""
    parts: dict[str, list[Criterion]] = {}
    for one in criteria:
        parts.setdefault(one.part, []).append(one)
    return parts


def in_rows(decision: Decision) -> list[dict[str, Any]]:
    """Return a row of words for each criterion, for a table."""
    return [
        {
            "criterion": one.name,
            "of": called(one.of),
            "required": one.required,
            "champion": _words(one.champion),
            "challenger": _words(one.challenger),
            "difference or count": one.found if one.is_difference else one.reason[:MOST],
            "state": MARKS[one.state],
        }
        for one in decision.criteria
    ]


def in_markdown(decision: Decision) -> str:
    """Return the comparison as Markdown: the outcome, what refuses, and a table of all criteria."""
    rows = in_rows(decision)
    lines = _heading(decision)
    lines += [f"- ✗ {_escaped(one.in_words())}" for one in decision.blocking]
    lines += _changed(decision)
    lines += ["", "| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += [
        "| " + " | ".join(_escaped(str(cell)) for cell in row.values()) + " |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def in_brief(decision: Decision) -> str:
    """Return the comparison as Markdown for a narrow form: a small table for each part."""
    lines = _heading(decision)
    lines += _changed(decision)
    parts = by_part(decision.criteria).items()
    # metrics first: the form shows a few lines at a time
    for part, criteria in sorted(parts, key=lambda one: all(c.metric is None for c in one[1])):
        change = any(one.is_difference for one in criteria)
        found = "challenger less champion" if change else "found"
        lines += [f"| {part} | {found} | required |", "|---|---|---|"]
        lines += [
            f"| {_brief_name(one)} | {_brief(one)} | {_escaped(_limit(one))} |" for one in criteria
        ]
        lines.append("")
    return "\n".join(lines)


def _heading(decision: Decision) -> list[str]:
    """Return lines with the outcome and on how many images it rests."""
    lines = [f"**{_escaped(decision.title)}**", ""]
    if decision.images is None or decision.patients is None:
        return lines
    images, patients = plural(decision.images, "test image"), plural(decision.patients, "patient")
    return [*lines, f"Compared on {images} of {patients}.", ""]


def _changed(decision: Decision) -> list[str]:
    """Return a line for each criterion that differs from the operator's."""
    if not decision.changed:
        return []
    told = [f"- ! {_escaped(one)}" for one in decision.changed]
    return ["**Criteria were changed for this run (operator's → this run's):**", "", *told, ""]


def _limit(criterion: Criterion) -> str:
    return criterion.required.removeprefix("challenger less champion ")


def _brief_name(criterion: Criterion) -> str:
    name = re.sub(r" (not worse|floor)$", "", criterion.name)
    return _escaped(f"{name}, {called(criterion.of)}")


def _brief(criterion: Criterion) -> str:
    found = criterion.found or criterion.reason[:MOST]
    return _escaped(f"{MARKS[criterion.state][0]} {found}")


def _words(interval: Interval | None) -> str:
    return "" if interval is None else interval_in_words(interval)


def _escaped(text: str) -> str:
    """Return a text that neither ends a cell nor begins a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
