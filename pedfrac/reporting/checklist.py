"""Checklist: checklist.md, the items of CLAIM 2024 and TRIPOD+AI, filled where a run tells.

The items and what answers them are data (claim_2024.yaml, tripod_ai.yaml). Not here: any metric,
and any answer that metrics.json does not give: those are for the authors.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment
from pydantic import BaseModel, ConfigDict, Field

from pedfrac.reporting.statements import environment

TEMPLATE = "checklist.md.j2"
GUIDELINES = ("claim_2024.yaml", "tripod_ai.yaml")


class Item(BaseModel):
    """An item: what it asks, the template that answers it, and what is left to the authors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    number: str
    section: str
    asks: str
    answer: str = Field("", description="Template over the findings; empty: for the authors")
    left: str = Field("", description="What the authors must add to the answer, a template, too")


class Guideline(BaseModel):
    """A published checklist."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    title: str
    source: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Row:
    """An item as filled; ``answer`` is empty where it is for the authors."""

    place: int
    number: str
    section: str
    asks: str
    answer: str
    left: str


@dataclass(frozen=True)
class Filled:
    """A checklist as filled."""

    name: str
    title: str
    source: str
    rows: tuple[Row, ...]

    @property
    def answered(self) -> int:
        """How many items the run answers."""
        return sum(bool(row.answer) for row in self.rows)

    @property
    def incomplete(self) -> int:
        """How many of the answers the authors must complete."""
        return sum(bool(row.answer and row.left) for row in self.rows)


def read_guideline(name: str) -> Guideline:
    """Return the items of a checklist that ships with the package (one of GUIDELINES)."""
    text = (Path(__file__).parent / "guidelines" / name).read_text(encoding="utf-8")
    return Guideline.model_validate(yaml.safe_load(text))


def fill(guideline: Guideline, findings: dict[str, Any]) -> Filled:
    """Return a checklist with the answers that ``findings`` (metrics.json) give."""
    templates = environment(findings)
    rows = tuple(_row(place, item, templates) for place, item in enumerate(guideline.items))
    return Filled(guideline.name, guideline.title, guideline.source, rows)


def write_checklist(path: Path, findings: dict[str, Any]) -> None:
    """Write all checklists, filled from the ``findings`` (metrics.json) of a run, in Markdown."""
    filled = [fill(read_guideline(name), findings) for name in GUIDELINES]
    page = environment(findings).get_template(TEMPLATE).render(filled=filled)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.strip() + "\n", encoding="utf-8")


def _row(place: int, item: Item, templates: Environment) -> Row:
    answer, left = (_line(item_part, templates) for item_part in (item.answer, item.left))
    return Row(place, item.number, item.section, item.asks, answer, left)


def _line(template: str, templates: Environment) -> str:
    """Return what a template says, in one line: a cell of a table holds no more."""
    return " ".join(templates.from_string(template).render().split())
