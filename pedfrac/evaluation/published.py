"""Protocols: what others published on these or such images, and how it stands beside one's own.

The metrics lie in protocols.yaml, each with its source. Not here: what a published split leaks
(leakage), and one's own metrics (evaluation).
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from pedfrac.config.base import Section
from pedfrac.data.tables import write_table
from pedfrac.errors import PedfracError
from pedfrac.evaluation.evaluation import Evaluation
from pedfrac.evaluation.split_leakage import (
    STRICTEST_LAST,
    Leakage,
    free_of_leakage,
    read_published_split,
)
from pedfrac.statistics.intervals import Interval
from pedfrac.statistics.result import Result

SplitKind = Literal["by patient", "by image", "external", "mixed", "not stated"]
Level = Literal["boxes", "images", "studies", "not stated"]
OWN_LEVELS: tuple[Level, ...] = ("images", "studies")
OWN = ("auroc", "average_precision", "sensitivity", "specificity", "accuracy")
NAMES = {"auroc": "AUROC", "average_precision": "average precision"}
OF_PROTOCOL = ("source", "url", "task", "population", "split", "split_note")


class PublishedMetric(Section):
    """One metric as published: bounds where the source has them, else null."""

    name: str
    value: float = Field(ge=0, le=1)
    low: float | None = Field(None, ge=0, le=1)
    high: float | None = Field(None, ge=0, le=1)
    of: Level
    measured_on: str
    counterpart: str | None = Field(
        None, pattern=r"^(images|studies)\.\w+$", description="The metric here that means the same"
    )
    note: str = ""

    @model_validator(mode="after")
    def _bounds_enclose(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{self.name}: give both bounds or neither")
        if self.low is not None and not self.low <= self.value <= (self.high or 0):
            raise ValueError(f"{self.name}: {self.value} lies outside its own bounds")
        return self


class Protocol(Section):
    """One publication: what was measured, on whom, how the images were split, and the metrics."""

    name: str
    source: str
    url: str = Field(pattern="^https://")
    task: str
    population: str
    split: SplitKind
    split_note: str = ""
    split_file: str | None = Field(None, description="How to get the split; none: not published")
    parts: dict[str, int] | None = Field(None, description="Images of each part, as published")
    settings: dict[str, Any] = Field(default_factory=dict, description="Configuration it asks for")
    metrics: tuple[PublishedMetric, ...]


class Reference(Result):
    """A published metric with its source, as a report prints it beside its own.

    ``low`` and ``high`` are None where the source has none; ``counterpart``: the metric of an
    evaluation that means the same, such as "images.auroc".
    """

    protocol: str
    source: str
    url: str
    task: str
    population: str
    split: SplitKind
    split_note: str
    metric: str
    value: float
    low: float | None
    high: float | None
    of: Level
    measured_on: str
    counterpart: str | None
    note: str


class PublishedValue(Result):
    """A published metric, with bounds where the source has them."""

    value: float
    low: float | None
    high: float | None


class Compared(Result):
    """A metric as published (None: it is not) and here (None: there is no such metric)."""

    metric: str
    of: Level
    published: PublishedValue | None
    here: Interval | None
    measured_on: str
    note: str


def published_protocols() -> tuple[Protocol, ...]:
    """Return all protocols, those whose split can be had first."""
    text = files("pedfrac.evaluation").joinpath("protocols.yaml").read_text(encoding="utf-8")
    return tuple(Protocol.model_validate(entry) for entry in yaml.safe_load(text))


def published_references() -> list[Reference]:
    """Return each published metric with its source."""
    return [
        Reference(
            protocol=protocol.name,
            metric=metric.name,
            **{name: getattr(protocol, name) for name in OF_PROTOCOL},
            **metric.model_dump(exclude={"name"}),
        )
        for protocol in published_protocols()
        for metric in protocol.metrics
    ]


def find_protocol(name: str) -> Protocol:
    """Return the protocol of a name. Raises PedfracError if its split cannot be had."""
    known = {protocol.name: protocol for protocol in published_protocols()}
    allowed = [key for key, protocol in known.items() if protocol.split_file]
    if name not in known:
        raise PedfracError(
            f"reproduce: there is no protocol {name!r}; there are {', '.join(known)}"
        )
    if name not in allowed:
        raise PedfracError(
            f"reproduce: the split of {name} is not published, so its metrics can only be listed "
            f"(--list); allowed are {', '.join(allowed)}"
        )
    return known[name]


def convert_split(published: Path, file: Path) -> Leakage:
    """Write a published split as filestem,split, each patient in one part; return what it shared.

    All test images stay. ``published``: see ``leakage.read_published_split``.
    """
    kept, leakage = free_of_leakage(read_published_split(published))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_table(kept.rename(columns={"part": "split"}).sort_values("filestem"), file)
    return leakage


def side_by_side(protocol: Protocol, metrics: Evaluation) -> list[Compared]:
    """Return published metrics beside the bundle's, first what is published, then what is not."""
    rows = [
        Compared(
            metric=one.name,
            of=one.of,
            published=PublishedValue(value=one.value, low=one.low, high=one.high),
            here=_own(metrics, one.counterpart) if one.counterpart else None,
            measured_on=one.measured_on,
            note=one.note,
        )
        for one in protocol.metrics
    ]
    used = {metric.counterpart for metric in protocol.metrics}
    return rows + [
        Compared(
            metric=NAMES.get(name, name),
            of=of,
            published=None,
            here=_own(metrics, f"{of}.{name}"),
            measured_on="",
            note="",
        )
        for of in OWN_LEVELS
        for name in OWN
        if f"{of}.{name}" not in used
    ]


def what_was_shared(protocol: Protocol, leakage: Leakage, scored: int) -> list[str]:
    """Return in sentences what the split given shares, and so what the metrics can be held for.

    ``scored``: how many of its test images the metrics here are of.
    """
    given, left_out = leakage.given, leakage.left_out
    said = []
    another = protocol.parts is not None and protocol.parts != given
    if another:
        said.append(
            f"The split given is not the published one: it names {_in_words(given)} images, the "
            f"published one {_in_words(protocol.parts or {})}."
        )
    if leakage.shared_patients:
        said += [
            f"LEAKAGE: in the split given {leakage.shared_patients} of {leakage.patients} patients "
            f"are in more than one part; {leakage.leaking_images} of {given['test']} test images "
            f"are of {leakage.leaking_patients} patients who also train or validate. "
            f"{'Metrics measured on it' if another else 'The published metrics'} were obtained "
            "with that leakage.",
            "The metrics here are without: every test image is kept, and the "
            f"{left_out['train']} training and {left_out['validation']} validation images of "
            "patients in a stricter part are left out.",
        ]
    else:
        said.append("No patient of the split given is in more than one part: nothing is left out.")
    if scored < given["test"]:
        said.append(
            f"{scored} of its {given['test']} test images are in the cohort; the others are not in "
            "the data, or excluded."
        )
    if not any(metric.counterpart for metric in protocol.metrics):
        said.append(
            f"{protocol.name} published metrics of boxes, which say nothing of images or studies: "
            "they stand beside those here, not against them."
        )
    return said


def _in_words(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{part} {parts[part]}" for part in STRICTEST_LAST)


def _own(metrics: Evaluation, counterpart: str) -> Interval:
    of, name = counterpart.split(".")
    rows = metrics if of == "images" else metrics.studies
    found: Interval = getattr(rows.whole.bundle, name)
    return found
