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
from pedfrac.statistics.intervals import Estimate, Floats, holm
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

Films = NDArray[np.bool_]
LEVEL = 0.05  # of all comparisons together
FIGURES = ("sensitivity", "specificity", "auroc", "observed_expected")
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


@dataclass(frozen=True)
class Subgroup:
    """Films of a kind (n,), and those they are compared with: by default all the others."""

    attribute: str
    name: str
    films: Films
    rest: Films
    figures: tuple[str, ...] = FIGURES


def subgroup_figures(
    films: pd.DataFrame,
    probability: ArrayLike,
    call: ArrayLike,
    ages: AgeGroups,
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Return the figures of each subgroup of test films, and where it differs from the others.

    ``films``: patient_id, fracture_visible, group and the metadata; ``probability`` and ``call``
    (n,) of a model. Subgroups: age group by sex, projection, side, manufacturer, cast, initial
    exam, osteopenia, uncertain diagnosis, and AO type (of fractured films, which alone have one:
    sensitivity only).

    Each of ``subgroups`` has ``attribute``, ``name``, ``films``, ``patients``, ``fractured``,
    ``prevalence`` and ``figures``: sensitivity, specificity, auroc and observed_expected
    (fractured films over those expected), each with its interval and, ``against`` the others, the
    difference, its ``p`` and ``p_corrected`` by Holm for all ``comparisons``, and ``differs`` where
    that is below ``level``. A figure that rests on fewer than ``least_patients`` is not compared
    and says so. Two halves of all films are one comparison.
    """
    truth = films["fracture_visible"].to_numpy(dtype=bool)
    model = _Model(
        PatientBootstrap(films["patient_id"], config.resamples, config.seed, config.interval),
        films["patient_id"].to_numpy(),
        truth,
        np.asarray(probability, np.float64),
        np.asarray(call, bool),
        config.subgroup_patients,
    )
    subgroups = find_subgroups(films, ages)
    rows = [model.row(subgroup) for subgroup in subgroups]
    return {
        "correction": "Holm",
        "level": LEVEL,
        "comparisons": _correct(subgroups, rows),
        "least_patients": config.subgroup_patients,
        "subgroups": rows,
    }


def find_subgroups(films: pd.DataFrame, ages: AgeGroups) -> list[Subgroup]:
    """Return the subgroups that the columns of some films tell, those without a film included."""
    found = [
        Subgroup(attribute, name, some, known & ~some)
        for attribute, known, kinds in _attributes(films, ages)
        for name, some in kinds.items()
    ]
    return [*found, *_ao_types(films)]


@dataclass(frozen=True)
class _Model:
    patients: PatientBootstrap
    owner: NDArray[Any]
    truth: Films
    probability: Floats
    call: Films
    least: int

    def row(self, subgroup: Subgroup) -> dict[str, Any]:
        """Return counts, figures and comparisons of a subgroup."""
        some = subgroup.films
        return {
            "attribute": subgroup.attribute,
            "name": subgroup.name,
            "films": int(some.sum()),
            "patients": len(np.unique(self.owner[some])),
            "fractured": int((self.truth & some).sum()),
            "prevalence": self.patients.rate_interval(self.truth, some),
            "figures": {name: self._compared(name, subgroup) for name in subgroup.figures},
        }

    def _compared(self, figure: str, subgroup: Subgroup) -> dict[str, Any]:
        own, others = (self._estimate(figure, some) for some in (subgroup.films, subgroup.rest))
        found = self.patients.interval(own) | {"patients": own.patients, "differs": False}
        few = [one.patients for one in (own, others) if one.patients < self.least]
        if few:
            whose = "" if own.patients < self.least else " among the others"
            note = f"not compared: {min(few)} patients{whose}, {self.least} are asked for"
            return found | {"against": None, "note": note}
        against = self.patients.contrast(own, others)
        return found | {"against": against | {"others": others.value}, "note": ""}

    def _estimate(self, figure: str, some: Films) -> Estimate:
        if figure == "auroc":
            return self.patients.area(self.truth, self.probability, some)
        if figure == "observed_expected":
            return self.patients.ratio(
                self.truth & some, np.where(some, self.probability, 0), scale="log"
            )
        if figure == "sensitivity":
            return self.patients.rate(self.call, some & self.truth, "no fractured films")
        return self.patients.rate(~self.call, some & ~self.truth, "no normal films")


def _attributes(
    films: pd.DataFrame, ages: AgeGroups
) -> Iterator[tuple[str, Films, dict[str, Films]]]:
    """Return attributes, the films of which they are known, and the films of each kind."""
    group, sex = films["group"].to_numpy(), films["gender"].to_numpy()
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
        values = films[column].to_numpy()
        kinds = {name: np.asarray(values == code) for code, name in names.items()}
        yield attribute, np.logical_or.reduce(list(kinds.values())), kinds
    if "pixel_spacing" in films:
        spacing = films["pixel_spacing"].to_numpy(dtype=np.float64)
        kinds = {name: np.isclose(spacing, mm, atol=4e-4) for mm, name in MANUFACTURERS.items()}
        yield "manufacturer", np.logical_or.reduce(list(kinds.values())), kinds
    for column, (yes, no) in FLAGS.items():
        flag = films[column].to_numpy(dtype=bool)
        yield column.replace("_", " "), np.ones(len(films), bool), {yes: flag, no: ~flag}


def _ao_types(films: pd.DataFrame) -> list[Subgroup]:
    """Return the fractured films of each AO type; films with several types are in several."""
    if "ao_classification" not in films:
        return []
    codes = [
        {part.strip() for part in text.split(";") if part.strip()} if fractured else set()
        for text, fractured in zip(
            films["ao_classification"].fillna("").astype(str),
            films["fracture_visible"],
            strict=True,
        )
    ]
    typed = np.array([bool(own) for own in codes], bool)
    return [
        Subgroup("AO type", code, some, typed & ~some, ("sensitivity",))
        for code in sorted(set().union(*codes))
        for some in [np.array([code in own for own in codes], bool)]
    ]


def _correct(subgroups: list[Subgroup], rows: list[dict[str, Any]]) -> int:
    """Correct the p values of all comparisons together; return how many different ones there are.

    Where two subgroups are each other's others, one test stands in both of their rows.
    """
    tests: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for subgroup, row in zip(subgroups, rows, strict=True):
        parts = frozenset((subgroup.films.tobytes(), subgroup.rest.tobytes()))
        for name, figure in row["figures"].items():
            if figure["against"] and figure["against"]["p"] is not None:
                tests.setdefault((parts, name), []).append(figure)
    corrected = holm([same[0]["against"]["p"] for same in tests.values()])
    for p, same in zip(corrected.tolist(), tests.values(), strict=True):
        for figure in same:
            figure["against"]["p_corrected"] = p
            figure["differs"] = p < LEVEL
    return len(tests)
