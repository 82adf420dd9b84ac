"""Subgroups: for whom the models do less well than for the others, beyond what chance explains.

Not here: the age groups themselves and the subsets of the main table (evaluation).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pedfrac.age_groups import AgeGroups
from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.statistics.intervals import Contrast, Estimate, Floats, Interval, holm
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.statistics.result import Result

Images = NDArray[np.bool_]
LEVEL = 0.05  # of all comparisons together
METRICS = ("sensitivity", "specificity", "auroc", "observed_expected")
SEXES = {"F": "girls", "M": "boys"}
PROJECTIONS = {1: "AP", 2: "lateral", 3: "other"}
SIDES = {"L": "left", "R": "right"}
MANUFACTURERS = {0.144: "Siemens", 0.143: "Agfa"}  # by pixel spacing in mm
FLAGS = {
    "cast": ("cast", "no cast"),
    "initial_exam": ("initial exam", "follow-up"),
    "osteopenia": ("osteopenia", "no osteopenia"),
    "diagnosis_uncertain": ("diagnosis uncertain", "diagnosis certain"),
}


class SubgroupContrast(Contrast):
    """How much larger a metric is than that of the others, and what chance explains."""

    p_corrected: float | None = None
    others: float | None = None


class SubgroupMetric(Interval):
    """A metric of a subgroup beside that of the others."""

    patients: int
    differs: bool
    against: SubgroupContrast | None
    note: str


class Subgroup(Result):
    """The metrics of a subgroup."""

    attribute: str
    name: str
    images: int
    patients: int
    fractured: int
    prevalence: Interval
    metrics: dict[str, SubgroupMetric]


class Subgroups(Result):
    """For whom the bundle does less well than for the others, beyond chance."""

    correction: str
    level: float
    comparisons: int
    least_patients: int
    subgroups: list[Subgroup]


@dataclass(frozen=True)
class SubgroupImages:
    """Images of a kind (n,), and those they are compared with: by default all the others."""

    attribute: str
    name: str
    images: Images
    rest: Images
    metrics: tuple[str, ...] = METRICS


def subgroup_metrics(
    images: pd.DataFrame,
    probability: ArrayLike,
    call: ArrayLike,
    ages: AgeGroups,
    config: EvaluationConfig,
) -> Subgroups:
    """Return the metrics of each subgroup of test images, and where it differs from the others.

    ``images``: patient_id, fracture_visible, group and the metadata; ``probability`` and ``call``
    (n,) of a model. Subgroups: age group by sex, projection, side, manufacturer, cast, initial
    exam, osteopenia, uncertain diagnosis, and AO type (of fractured images, which alone have one:
    sensitivity only).

    Each of ``subgroups`` has ``attribute``, ``name``, ``images``, ``patients``, ``fractured``,
    ``prevalence`` and ``metrics``: sensitivity, specificity, auroc and observed_expected
    (fractured images over those expected), each with its interval and, ``against`` the others, the
    difference, its ``p`` and ``p_corrected`` by Holm for all ``comparisons``, and ``differs`` where
    that is below ``level``. A metric that rests on fewer than ``least_patients`` is not compared
    and says so. Two halves of all images are one comparison.
    """
    truth = images["fracture_visible"].to_numpy(dtype=bool)
    model = _Model(
        PatientBootstrap(images["patient_id"], config.resamples, config.seed),
        images["patient_id"].to_numpy(),
        truth,
        np.asarray(probability, np.float64),
        np.asarray(call, bool),
        config.subgroup_patients,
    )
    subgroups = find_subgroups(images, ages)
    tests, rows = _corrected(subgroups, [model.row(subgroup) for subgroup in subgroups])
    return Subgroups(
        correction="Holm",
        level=LEVEL,
        comparisons=tests,
        least_patients=config.subgroup_patients,
        subgroups=rows,
    )


def find_subgroups(images: pd.DataFrame, ages: AgeGroups) -> list[SubgroupImages]:
    """Return the subgroups that the columns of a table define, empty ones included."""
    found = [
        SubgroupImages(attribute, name, some, known & ~some)
        for attribute, known, kinds in _attributes(images, ages)
        for name, some in kinds.items()
    ]
    return [*found, *_ao_types(images)]


@dataclass(frozen=True)
class _Model:
    patients: PatientBootstrap
    owner: NDArray[Any]
    truth: Images
    probability: Floats
    call: Images
    least: int

    def row(self, subgroup: SubgroupImages) -> Subgroup:
        """Return counts, metrics and comparisons of a subgroup."""
        some = subgroup.images
        return Subgroup(
            attribute=subgroup.attribute,
            name=subgroup.name,
            images=int(some.sum()),
            patients=len(np.unique(self.owner[some])),
            fractured=int((self.truth & some).sum()),
            prevalence=self.patients.rate_interval(self.truth, some),
            metrics={name: self._compared(name, subgroup) for name in subgroup.metrics},
        )

    def _compared(self, metric: str, subgroup: SubgroupImages) -> SubgroupMetric:
        own, others = (self._estimate(metric, some) for some in (subgroup.images, subgroup.rest))
        found = dict(self.patients.interval(own)) | {"patients": own.patients, "differs": False}
        few = [one.patients for one in (own, others) if one.patients < self.least]
        if few:
            whose = "" if own.patients < self.least else " among the others"
            note = f"not compared: {min(few)} patients{whose}, {self.least} are asked for"
            return SubgroupMetric(**found, against=None, note=note)
        against = dict(self.patients.contrast(own, others)) | {"others": _known(others.value)}
        return SubgroupMetric(**found, against=SubgroupContrast(**against), note="")

    def _estimate(self, metric: str, some: Images) -> Estimate:
        if metric == "auroc":
            return self.patients.area(self.truth, self.probability, some)
        if metric == "observed_expected":
            return self.patients.ratio(
                self.truth & some, np.where(some, self.probability, 0), scale="log"
            )
        if metric == "sensitivity":
            return self.patients.rate(self.call, some & self.truth, "no fractured images")
        return self.patients.rate(~self.call, some & ~self.truth, "no normal images")


def _attributes(
    images: pd.DataFrame, ages: AgeGroups
) -> Iterator[tuple[str, Images, dict[str, Images]]]:
    """Return attributes, the images of which they are known, and the images of each kind."""
    group, sex = images["group"].to_numpy(), images["gender"].to_numpy()
    yield (
        "age and sex",
        np.isin(sex, list(SEXES)) & (group >= 0),
        {
            f"{name}, {called}": (group == index) & (sex == code)
            for index, name in enumerate(ages.names)
            for code, called in SEXES.items()
        },
    )
    for attribute, column, names in (
        ("projection", "projection", PROJECTIONS),
        ("side", "laterality", SIDES),
    ):
        values = images[column].to_numpy()
        kinds = {name: np.asarray(values == code) for code, name in names.items()}
        yield attribute, np.logical_or.reduce(list(kinds.values())), kinds
    if "pixel_spacing" in images:
        spacing = images["pixel_spacing"].to_numpy(dtype=np.float64)
        kinds = {name: np.isclose(spacing, mm, atol=4e-4) for mm, name in MANUFACTURERS.items()}
        yield "manufacturer", np.logical_or.reduce(list(kinds.values())), kinds
    for column, (yes, no) in FLAGS.items():
        flag = images[column].to_numpy(dtype=bool)
        yield column.replace("_", " "), np.ones(len(images), bool), {yes: flag, no: ~flag}


def _ao_types(images: pd.DataFrame) -> list[SubgroupImages]:
    """Return the fractured images of each AO type; images with several types are in several."""
    if "ao_classification" not in images:
        return []
    codes = [
        {part.strip() for part in text.split(";") if part.strip()} if fractured else set()
        for text, fractured in zip(
            images["ao_classification"].fillna("").astype(str),
            images["fracture_visible"],
            strict=True,
        )
    ]
    typed = np.array([bool(own) for own in codes], bool)
    return [
        SubgroupImages("AO type", code, some, typed & ~some, ("sensitivity",))
        for code in sorted(set().union(*codes))
        for some in [np.array([code in own for own in codes], bool)]
    ]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _corrected(subgroups: list[SubgroupImages], rows: list[Subgroup]) -> tuple[int, list[Subgroup]]:
    """Correct the p values of all comparisons together; return how many different ones there are.

    Where two subgroups are each other's others, one test stands in both of their rows.
    """
    tests: dict[tuple[frozenset[bytes], str], float] = {}
    of_row = []
    for subgroup, row in zip(subgroups, rows, strict=True):
        parts = frozenset((subgroup.images.tobytes(), subgroup.rest.tobytes()))
        of_row.append(parts)
        for name, metric in row.metrics.items():
            if metric.against and metric.against.p is not None:
                tests.setdefault((parts, name), metric.against.p)
    corrected = dict(zip(tests, holm(list(tests.values())).tolist(), strict=True))
    return len(tests), [
        row.model_copy(
            update={
                "metrics": {
                    name: _with_p(metric, corrected.get((parts, name)))
                    for name, metric in row.metrics.items()
                }
            }
        )
        for parts, row in zip(of_row, rows, strict=True)
    ]


def _with_p(metric: SubgroupMetric, p: float | None) -> SubgroupMetric:
    """Return a metric with the corrected p value of its comparison, if it has one."""
    if metric.against is None or metric.against.p is None or p is None:
        return metric
    against = metric.against.model_copy(update={"p_corrected": p})
    return metric.model_copy(update={"against": against, "differs": p < LEVEL})
