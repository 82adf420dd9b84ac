"""Findings: metrics.json, all that is known of a run, in a published schema.

The report, the model card and the checklist are made from it and nothing else. Not here: how any
metric comes about.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pedfrac.config.loading import explain_invalid
from pedfrac.errors import PedfracError
from pedfrac.storage.files import write_json

METRICS, SCHEMA = "metrics.json", "metrics.schema.json"
Metrics = dict[str, Any]
Confusion = Annotated[
    list[list[int]], Field(description="Images of each true class (row) called each class (column)")
]
Model = Literal["bundle", "specialist", "generalist", "bundle by seen age"]


class Part(BaseModel):
    """A part of metrics.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(Part):
    """A metric with its 95 % interval over patients."""

    value: float | None
    low: float | None
    high: float | None
    method: str | None = Field(None, description="How the bounds came about")
    reason: str | None = Field(None, description="Why value or bounds are missing")


class ErrorInterval(Interval):
    """An expected calibration error; chance: what right probabilities would show."""

    chance: float | None = None


class ModelFigures(Part):
    """A model on some images or studies, called at its threshold."""

    threshold: float | None = Field(description="None where age groups have different ones")
    auroc: Interval
    average_precision: Interval
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval
    accuracy: Interval
    f1: Interval
    confusion: Confusion


class Difference(Part):
    """How much larger the metrics of one model are, paired by patients."""

    auroc: Interval
    sensitivity: Interval
    specificity: Interval


class Row(Part):
    """Some test images (or studies: then images counts studies), and what models do on them."""

    name: str
    group: int | None = Field(None, description="Age group; -1: all; none: a subset")
    images: int
    patients: int
    fractured: int
    models: dict[Model, ModelFigures]
    baselines: dict[str, Interval] = Field(description="AUROC of metadata alone, without pixels")
    above_baselines: dict[str, Interval] = Field(
        description="AUROC of the bundle less that of metadata alone, paired by patients"
    )
    differences: dict[str, Difference]


class Studies(Part):
    """The same rows with all images of an examination joined by the rule."""

    rule: str
    groups: list[Row]
    subsets: list[Row]


class Roc(Part):
    """Sensitivity at each 1 - specificity, with a pointwise 95 % band over patients."""

    fpr: list[float]
    tpr: list[float]
    low: list[float]
    high: list[float]


class Pr(Part):
    """Precision at each recall, with a pointwise 95 % band over patients."""

    recall: list[float]
    precision: list[float]
    low: list[float]
    high: list[float]


class Curves(Part):
    """The curves of a model on all test images."""

    roc: Roc
    pr: Pr


class AgeFigures(Part):
    """How well the age group is told from the image."""

    accuracy: Interval
    adjacent: Interval = Field(description="Share of images at most one group off")
    f1: Interval
    confusion: Confusion
    names: list[str]
    mean_absolute_error: Interval | None = Field(None, description="Years, if the head tells them")


class Thresholds(Part):
    """From which probability images are called fractured, by age group."""

    pooled: float
    groups: list[float]
    weights: list[float] = Field(description="How far each group's own images set its threshold")
    studies: list[float]


class BandFigures(Part):
    """Coverage, and metrics of the images that are called."""

    name: str
    coverage: Interval
    sensitivity: Interval
    specificity: Interval
    accuracy: Interval
    ppv: Interval
    npv: Interval


class Abstention(Part):
    """The band of images that are left to a reader, by age group."""

    rule: str
    reason: str
    low: list[float | None]
    high: list[float | None]
    groups: list[BandFigures]


class Operating(Part):
    """Operating points, all chosen on validation images."""

    rule: str
    sensitivity_target: float | None
    thresholds: dict[str, Thresholds]
    abstention: Abstention


class Bin(Part):
    """A point of a reliability curve."""

    images: int
    predicted: float
    observed: Interval


class CalibrationFigures(Part):
    """How far probabilities mean what they say."""

    brier: Interval
    log_loss: Interval
    observed_expected: Interval
    intercept: Interval
    slope: Interval
    ece: ErrorInterval
    curve: list[Bin]


class GroupCalibration(Part):
    """Calibration of an age group, before and after the map fitted on validation images."""

    name: str
    before: CalibrationFigures
    after: CalibrationFigures
    change: dict[str, Interval]


class Calibration(Part):
    """Calibration of the bundle."""

    method: str
    weights: list[float]
    groups: list[GroupCalibration]


class Decision(Part):
    """Net benefit per image of treating by the model, all, or none, at each chance."""

    chances: list[float]
    none: float
    model: list[Interval]
    all: list[Interval]
    gain: list[Interval]


class RouteFigures(Part):
    """Metrics by one way to choose among the specialists."""

    auroc: Interval
    sensitivity: Interval
    specificity: Interval
    accuracy: Interval
    change: Difference | None = Field(None, description="Gain on recorded age, paired")


class RouteErrors(Part):
    """Images sent to a wrong specialist, and what became of their calls."""

    images: int
    share: Interval
    changed: Interval
    harmed: Interval
    helped: Interval


class Doubtful(Part):
    """An image whose recorded age and looks disagree."""

    filestem: str
    patient_id: int
    age: float
    recorded: str
    seen: str
    probability_recorded: float
    probability_seen: float
    call_changed: bool


class GroupRouting(Part):
    """The share of an age group's images sent to a wrong specialist."""

    name: str
    wrong: Interval


class Routing(Part):
    """What it costs that the age is told from the image."""

    images: int
    patients: int
    unrecorded: int
    routes: dict[str, RouteFigures]
    errors: dict[str, RouteErrors]
    groups: list[GroupRouting]
    doubtful_images: int
    doubtful: list[Doubtful]


class Contrast(Interval):
    """How much larger a metric is than that of the others, and what chance explains."""

    p: float | None = None
    p_corrected: float | None = None
    others: float | None = None


class SubgroupFigure(Interval):
    """A metric of a subgroup beside that of the others."""

    patients: int
    differs: bool
    against: Contrast | None
    note: str


class Subgroup(Part):
    """Images of a kind."""

    attribute: str
    name: str
    images: int
    patients: int
    fractured: int
    prevalence: Interval
    metrics: dict[str, SubgroupFigure]


class Subgroups(Part):
    """For whom the bundle does less well than for the others, beyond chance."""

    correction: str
    level: float
    comparisons: int
    least_patients: int
    subgroups: list[Subgroup]


class Selection(Part):
    """Which network scores an age group, as validation images chose."""

    name: str
    choice: Literal["specialist", "generalist", "average"]
    why: str
    margin: float
    patients: int
    auroc: dict[str, Interval]
    gain: Interval
    gain_of_average: Interval


class Training(Part):
    """A training: an entry per epoch, and its end."""

    history: list[Metrics]
    summary: Metrics


class Evaluation(Part):
    """What the evaluation finds on the test images."""

    groups: list[Row]
    subsets: list[Row]
    studies: Studies
    baselines: dict[str, Interval]
    curves: dict[str, Curves]
    age: AgeFigures
    operating: Operating
    calibration: Calibration
    decision: Decision
    routing: Routing
    subgroups: Subgroups


class Counted(Part):
    """Images and the patients they are of."""

    images: int
    patients: int


class Folds(Counted):
    """Images that folds held out in turn, each scored by networks of its fold, pooled."""

    folds: int
    held_out: list[Counted] = Field(description="From each fold")
    groups: list[Row]
    subsets: list[Row]


class Findings(Evaluation):
    """metrics.json: all that is known of a run."""

    schema_version: Literal[1] = 1
    title: str
    cohort: Metrics = Field(description="Exclusions step by step, and age groups")
    records: Metrics = Field(description="What was read, and what could not be used")
    split: Metrics = Field(description="Parts, their counts, and proof that they share no patient")
    training: dict[str, Training] = Field(description="By model: age, generalist, age groups")
    selection: list[Selection]
    explanation: dict[str, Metrics] = Field(description="By age group: heat maps against boxes")
    robustness: Metrics | None = Field(None, description="Metrics on disturbed images")
    shortcuts: Metrics | None = Field(None, description="Metrics on images without bones")
    folds: Folds | None = Field(None, description="Pooled out-of-fold metrics")
    published: list[Metrics] = Field(default=[], description="Metrics of others, with sources")
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
    try:
        content = json.loads(path.read_text())
        return Findings.model_validate(content).model_dump(mode="json")
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PedfracError(f"{path}: cannot be read as JSON ({error})") from None
    except ValidationError as error:
        raise PedfracError(f"{path}: {explain_invalid(error, Findings)}") from None


def schema() -> dict[str, Any]:
    """Return the JSON Schema of metrics.json."""
    return Findings.model_json_schema() | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
    }
