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
from pedfrac.evaluation.split_leakage import (
    STRICTEST_LAST,
    Leakage,
    free_of_leakage,
    read_published_split,
)

SplitKind = Literal["by patient", "by image", "external", "mixed", "not stated"]
OWN = ("auroc", "average_precision", "sensitivity", "specificity", "accuracy")
NAMES = {"auroc": "AUROC", "average_precision": "average precision"}
MODEL = "bundle"  # whose metrics stand beside the published ones


class PublishedFigure(Section):
    """One metric as published: bounds where the source has them, else null."""

    name: str
    value: float = Field(ge=0, le=1)
    low: float | None = Field(None, ge=0, le=1)
    high: float | None = Field(None, ge=0, le=1)
    of: Literal["boxes", "images", "studies", "not stated"]
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
    metrics: tuple[PublishedFigure, ...]


def published_protocols() -> tuple[Protocol, ...]:
    """Return all protocols, those whose split can be had first."""
    text = files("pedfrac.evaluation").joinpath("protocols.yaml").read_text(encoding="utf-8")
    return tuple(Protocol.model_validate(entry) for entry in yaml.safe_load(text))


def published_references() -> list[dict[str, Any]]:
    """Return a row for each published metric, JSON-ready, for a report to print beside its own.

    protocol, source, url, task, population, split (kind), split_note, metric, value, low, high
    (null where the source has none), of (boxes, images, studies), measured_on, counterpart
    ("images.auroc": the metric of an evaluation that means the same, or null) and note.
    """
    shared = ("source", "url", "task", "population", "split", "split_note")
    return [
        {"protocol": protocol.name}
        | {name: getattr(protocol, name) for name in shared}
        | {"metric": metric.name}
        | metric.model_dump(exclude={"name"})
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


def side_by_side(protocol: Protocol, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return published metrics beside those of an evaluation, a row each, JSON-ready.

    A row: metric, of (boxes, images, studies), published and here (value, low, high; null where
    there is none), measured_on (as published) and note. ``metrics`` as ``evaluation.evaluate``
    returns them; here stands the bundle's. First what is published, then what is not.
    """
    rows = []
    for metric in protocol.metrics:
        told = metric.model_dump(include={"value", "low", "high"})
        here = _own(metrics, metric.counterpart) if metric.counterpart else None
        rows.append(_row(metric.name, metric.of, told, here, metric.measured_on, metric.note))
    used = {metric.counterpart for metric in protocol.metrics}
    own = [(of, name) for of in ("images", "studies") for name in OWN if f"{of}.{name}" not in used]
    return rows + [
        _row(NAMES.get(name, name), of, None, _own(metrics, f"{of}.{name}"), "", "")
        for of, name in own
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


def _own(metrics: Mapping[str, Any], counterpart: str) -> dict[str, Any]:
    of, name = counterpart.split(".")
    rows = metrics["groups"] if of == "images" else metrics["studies"]["groups"]
    own: dict[str, Any] = rows[0]["models"][MODEL][name]
    return own


def _row(
    name: str,
    of: str,
    published: dict[str, Any] | None,
    here: dict[str, Any] | None,
    measured_on: str,
    note: str,
) -> dict[str, Any]:
    return {
        "metric": name,
        "of": of,
        "published": published,
        "here": here,
        "measured_on": measured_on,
        "note": note,
    }
