"""Rows of the main tables: some test images, and the metrics of each model and baseline on them.

Not here: how images get their scores and calls (evaluation).
"""

from typing import Annotated, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from pedfrac.age_groups import AgeGroups
from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.statistics.classification import confusion
from pedfrac.statistics.intervals import Floats, Interval, missing
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.statistics.result import Result

ALL = -1  # the group that stands for all images
BASELINES = {
    "age, sex, projection, side": False,
    "with cast, initial exam, study number, osteopenia": True,
}
NOT_LEARNT = "training images are all of one kind"
ModelName = Literal["bundle", "specialist", "generalist", "bundle by seen age"]
Confusion = Annotated[
    list[list[int]], Field(description="Images of each true class (row) called each class (column)")
]


class Model(NamedTuple):
    """Which columns hold a model's probabilities and the age group it took, and whose scorer."""

    score: str
    group: str
    scorer: str


MODELS: dict[ModelName, Model] = {
    "bundle": Model("bundle", "group", "bundle"),
    "specialist": Model("specialist", "group", "specialist"),
    "generalist": Model("generalist", "group", "generalist"),
    "bundle by seen age": Model("seen", "group_seen", "bundle"),
}
DIFFERENCES: tuple[tuple[ModelName, ModelName], ...] = (
    ("bundle", "generalist"),
    ("specialist", "generalist"),
)


class ModelMetrics(Result):
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


class Difference(Result):
    """How much larger the metrics of one model are, paired by patients."""

    auroc: Interval
    sensitivity: Interval
    specificity: Interval


class Row(Result):
    """Some test images (or studies: then images counts studies), and what models do on them."""

    name: str
    group: int | None = Field(None, description="Age group; -1: all; none: a subset")
    images: int
    patients: int
    fractured: int
    models: dict[ModelName, ModelMetrics]
    baselines: dict[str, Interval] = Field(description="AUROC of metadata alone, without pixels")
    above_baselines: dict[str, Interval] = Field(
        description="AUROC of the bundle less that of metadata alone, paired by patients"
    )
    differences: dict[str, Difference]

    @property
    def bundle(self) -> ModelMetrics:
        """The metrics of the bundle."""
        return self.models["bundle"]


class Rows(Result):
    """A row for all images and each age group, and one for each subset."""

    groups: list[Row]
    subsets: list[Row]

    @property
    def whole(self) -> Row:
        """The row of all images."""
        return self.groups[0]


def rows_of(images: pd.DataFrame, ages: AgeGroups, config: EvaluationConfig) -> Rows:
    """Return the rows of images or studies with scores and calls (see ``call_images``)."""
    group = images["group"].to_numpy()
    cast, initial = (images[name].to_numpy(dtype=bool) for name in ("cast", "initial_exam"))
    subsets = {
        "no cast": ~cast,
        "initial exam": initial,
        "no cast, initial exam": ~cast & initial,
        "cast": cast,
        "follow-up": ~initial,
    }
    return Rows(
        groups=[_row(images, "all", config, ALL)]
        + [
            _row(images[group == index], name, config, index)
            for index, name in enumerate(ages.names)
        ],
        subsets=[_row(images[some], name, config) for name, some in subsets.items()],
    )


def bootstrap_of(images: pd.DataFrame, config: EvaluationConfig) -> PatientBootstrap:
    """Return the resampling of the patients of images."""
    return PatientBootstrap(images["patient_id"], config.resamples, config.seed)


def difference(
    patients: PatientBootstrap,
    truth: NDArray[np.bool_],
    scores: tuple[Floats, Floats],
    calls: tuple[NDArray[np.bool_], NDArray[np.bool_]],
) -> Difference:
    """Return how much larger the metrics of the first scores and calls are, all (n,)."""
    return Difference(
        auroc=patients.auroc_difference(truth, *scores),
        sensitivity=patients.rate_difference(*calls, truth, "no fractured images"),
        specificity=patients.rate_difference(~calls[0], ~calls[1], ~truth, "no normal images"),
    )


def _row(
    images: pd.DataFrame, name: str, config: EvaluationConfig, group: int | None = None
) -> Row:
    """Return the counts of some images and the metrics of each model and baseline on them."""
    truth = images["fracture_visible"].to_numpy(dtype=bool)
    bootstrap = bootstrap_of(images, config)
    return Row(
        name=name,
        group=group,
        images=len(images),
        patients=int(images["patient_id"].nunique()),
        fractured=int(truth.sum()),
        models={model: _model_metrics(bootstrap, truth, images, model) for model in MODELS},
        baselines={
            one: _baseline_area(bootstrap, truth, images[f"baseline {one}"]) for one in BASELINES
        },
        above_baselines={
            one: _gain_on_baseline(bootstrap, truth, images, one) for one in BASELINES
        },
        differences={
            f"{a} less {b}": difference(
                bootstrap,
                truth,
                (_scores(images, a), _scores(images, b)),
                (_calls(images, a), _calls(images, b)),
            )
            for a, b in DIFFERENCES
        },
    )


def _scores(images: pd.DataFrame, model: ModelName) -> Floats:
    return images[MODELS[model].score].to_numpy(dtype=np.float64)


def _calls(images: pd.DataFrame, model: ModelName) -> NDArray[np.bool_]:
    return images[f"call {model}"].to_numpy(dtype=bool)


def _model_metrics(
    bootstrap: PatientBootstrap, truth: NDArray[np.bool_], images: pd.DataFrame, model: ModelName
) -> ModelMetrics:
    scores, call = _scores(images, model), _calls(images, model)
    used = images[f"threshold {model}"].unique()
    return ModelMetrics(
        threshold=float(used[0]) if len(used) == 1 else None,
        auroc=bootstrap.auroc_interval(truth, scores),
        average_precision=bootstrap.average_precision_interval(truth, scores),
        sensitivity=bootstrap.rate_interval(call, truth, "no fractured images"),
        specificity=bootstrap.rate_interval(~call, ~truth, "no normal images"),
        ppv=bootstrap.rate_interval(truth, call, "no image was called fractured"),
        npv=bootstrap.rate_interval(~truth, ~call, "no image was called normal"),
        accuracy=bootstrap.rate_interval(call == truth),
        f1=bootstrap.f1_interval(truth, call),
        confusion=confusion(truth, call, 2),
    )


def _gain_on_baseline(
    bootstrap: PatientBootstrap, truth: NDArray[np.bool_], images: pd.DataFrame, name: str
) -> Interval:
    """Return how much larger the bundle's AUROC is than a baseline's, paired by patients."""
    scores = images[f"baseline {name}"]
    if scores.isna().any():
        return missing(NOT_LEARNT)
    return bootstrap.auroc_difference(truth, _scores(images, "bundle"), scores)


def _baseline_area(
    bootstrap: PatientBootstrap, truth: NDArray[np.bool_], scores: pd.Series
) -> Interval:
    if scores.isna().any():
        return missing(NOT_LEARNT)
    return bootstrap.auroc_interval(truth, scores.to_numpy(dtype=np.float64))
