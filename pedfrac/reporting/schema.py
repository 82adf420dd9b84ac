"""Findings: metrics.json, all that is known of a run, in a published schema.

The report, the model card and the checklist are made from it and nothing else. Not here: how any
metric comes about.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pedfrac.config.loading import read_json_as
from pedfrac.evaluation.evaluation import Evaluation
from pedfrac.evaluation.published import Reference
from pedfrac.evaluation.robustness import Robustness
from pedfrac.evaluation.shortcuts import Shortcuts
from pedfrac.explanation.metrics import GroupExplanation
from pedfrac.scoring.model_selection import Selection
from pedfrac.statistics.result import Result
from pedfrac.storage.files import write_json

METRICS, SCHEMA = "metrics.json", "metrics.schema.json"
Metrics = dict[str, Any]


class GroupSelection(Selection):
    """Which network scores an age group."""

    name: str


class Training(Result):
    """A training: an entry per epoch, and its end."""

    history: list[Metrics]
    summary: Metrics


class Findings(Evaluation):
    """metrics.json: all that is known of a run."""

    schema_version: Literal[1] = 1
    title: str
    cohort: Metrics = Field(description="Exclusions step by step, and age groups")
    records: Metrics = Field(description="What was read, and what could not be used")
    split: Metrics = Field(description="Parts, their counts, and proof that they share no patient")
    training: dict[str, Training] = Field(description="By model: age, generalist, age groups")
    selection: list[GroupSelection]
    explanation: dict[str, GroupExplanation] = Field(
        description="By age group: heat maps against boxes"
    )
    robustness: Robustness | None = Field(None, description="Metrics on disturbed images")
    shortcuts: Shortcuts | None = Field(None, description="Metrics on images without bones")
    published: list[Reference] = Field(default=[], description="Metrics of others, with sources")
    config: Metrics
    provenance: Metrics


def write_findings(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write metrics.json, with its schema beside it; return what it holds.

    Raises ValidationError where the content is not in the schema: a fault of pedfrac itself.
    """
    found = Findings.model_validate(content).model_dump(mode="json", exclude_none=False)
    write_json(folder / METRICS, found)
    write_json(folder / SCHEMA, schema())
    return found


def read_findings(path: Path) -> dict[str, Any]:
    """Read a metrics.json. Raises PedfracError that names what is not in the schema."""
    return read_json_as(path, Findings).model_dump(mode="json")


def schema() -> dict[str, Any]:
    """Return the JSON Schema of metrics.json."""
    return Findings.model_json_schema() | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
    }
