"""Criteria of the gate: not worse than the champion, floors, calibration, subgroups, heat maps."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pedfrac.age_groups import AgeGroups
from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.config.promotion import GateConfig
from pedfrac.evaluation.evaluation import Evaluation
from pedfrac.evaluation.rows import Row
from pedfrac.evaluation.subgroups import find_subgroups
from pedfrac.explanation.metrics import GroupExplanation
from pedfrac.promotion.decision import Criterion, Model, State
from pedfrac.statistics.intervals import Interval, missing
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

SUBSETS = {"no_cast": "no cast", "initial": "initial exam"}
CALLS = ("sensitivity", "specificity")
DIRECTED = ("sensitivity", "specificity", "auroc")  # metrics of which less is worse
FEW = 5  # names and values that a reason lists


class CommonImages(NamedTuple):
    """The test images that both versions scored, one row each, in one order."""

    challenger: pd.DataFrame
    champion: pd.DataFrame

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Whether each common image is fractured, as the challenger was told."""
        return self.challenger["fracture_visible"].to_numpy(dtype=bool)

    def bootstrap(self, some: NDArray[np.bool_] | None = None) -> PatientBootstrap:
        """Return the resampling of the patients of all or some common images."""
        how = EvaluationConfig()
        patients = self.challenger["patient_id"].to_numpy()
        patients = patients if some is None else patients[some]
        return PatientBootstrap(patients, how.resamples, how.seed)

    def difference(
        self, metric: str, some: NDArray[np.bool_] | None = None
    ) -> tuple[Interval, Interval, Interval]:
        """Return a metric of the challenger, of the champion, and the first less the second."""
        some = np.ones(len(self.truth), bool) if some is None else some
        patients, truth = self.bootstrap(some), self.truth[some]
        sides = self.challenger[some], self.champion[some]
        if metric == "auroc":
            scores = [side["bundle"].to_numpy(dtype=np.float64) for side in sides]
            own = [patients.auroc_interval(truth, score) for score in scores]
            return own[0], own[1], patients.auroc_difference(truth, scores[0], scores[1])
        among = truth if metric == "sensitivity" else ~truth
        hits = [side["call"].to_numpy(dtype=bool) == truth for side in sides]
        kind = "fractured" if metric == "sensitivity" else "normal"
        own = [patients.rate_interval(hit, among, f"no {kind} images") for hit in hits]
        return own[0], own[1], patients.rate_difference(hits[0], hits[1], among)


def common_images(challenger: Model, champion: Model | None) -> CommonImages | None:
    """Return the test images that both models scored, or None."""
    if champion is None or challenger.images is None or champion.images is None:
        return None
    own, other = challenger.called, champion.called
    both = own.index.intersection(other.index).sort_values()
    return CommonImages(own.loc[both], other.loc[both])


def not_worse_criteria(
    challenger: Model, champion: Model | None, common: CommonImages | None, config: GateConfig
) -> Iterator[Criterion]:
    """Yield the criteria by which the challenger must not be worse than the champion."""
    if champion is None:
        yield Criterion(
            part="Not worse",
            name="Not worse than the champion",
            of="common test images",
            required="a champion to compare with",
            state="not asked",
            reason="the first model passes on floors alone",
        )
        return
    margins = {
        "auroc": config.margins.auroc,
        "sensitivity": config.margins.sensitivity,
        "specificity": config.margins.specificity,
    }
    for metric, margin in margins.items():
        yield _not_worse_by(metric, margin, "all common images", common)
    names = _groups(challenger)[1:]
    for group, name in enumerate(names):
        some = None
        if common is not None:
            some = common.challenger["group"].to_numpy() == group
        yield _not_worse_by(
            "auroc", config.margins.auroc_of_group, name, common, some, config.patients
        )


def _not_worse_by(
    metric: str,
    margin: float,
    of: str,
    common: CommonImages | None,
    some: NDArray[np.bool_] | None = None,
    least: int = 0,
) -> Criterion:
    asked = {
        "part": "Not worse",
        "name": f"{_title(metric)} not worse",
        "of": of,
        "required": f"challenger less champion above −{margin:g}",
    }
    if common is None:
        return Criterion(state="not known", reason=NO_EVALUATION, **asked)
    some = np.ones(len(common.truth), bool) if some is None else some
    counts = {"images": int(some.sum()), "patients": common.bootstrap(some).count}
    few = _fewest(common, some)
    if few < least:
        reason = f"{few} patients with or without a fracture, {least} are asked for"
        return Criterion(state="not asked", reason=reason, **asked, **counts)
    own, other, change = common.difference(metric, some)
    return Criterion(
        state=_shown(change, lambda low: low > -margin or (low == 0 == margin)),
        reason=change.reason or "",
        metric=change,
        champion=other,
        challenger=own,
        **asked,
        **counts,
    )


def _fewest(common: CommonImages, some: NDArray[np.bool_]) -> int:
    """Return how many patients have fractured images, or normal ones, whichever are fewer."""
    patients = common.challenger["patient_id"].to_numpy()
    return min(len(np.unique(patients[some & kind])) for kind in (common.truth, ~common.truth))


def floor_criteria(challenger: Model, config: GateConfig) -> Iterator[Criterion]:
    """Yield the floors of sensitivity and specificity; lower bounds count."""
    for name, floor in config.floors.model_dump().items():
        metric, _, subset = name.partition("_")
        row = _row(challenger.metrics, SUBSETS.get(subset))
        found = getattr(row.bundle, metric) if row else missing(NO_EVALUATION)
        yield Criterion(
            part="Floors",
            name=f"{_title(metric)} floor",
            of=SUBSETS.get(subset, "all test images"),
            required=f"lower bound at least {floor:g}",
            state="held" if floor == 0 else _shown(found, lambda low, f=floor: low >= f),
            reason=found.reason or "",
            metric=found,
            challenger=found,
            images=row.images if row else None,
            patients=row.patients if row else None,
        )


def calibration_criteria(challenger: Model, config: GateConfig) -> Iterator[Criterion]:
    """Yield the bounds of calibration on all test images; values count, not their intervals."""
    metrics = challenger.metrics
    bounds: dict[str, Sequence[float]] = {
        "slope": config.slope,
        "observed_expected": config.observed_expected,
    }
    if config.calibration_error is not None:
        bounds = {"ece": (0, config.calibration_error)} | bounds
    for metric, (low, high) in bounds.items():
        found = missing(NO_EVALUATION)
        if metrics is not None:
            after = getattr(metrics.calibration.groups[0].after, metric)
            found = Interval(**{name: getattr(after, name) for name in Interval.model_fields})
        state = is_known(found.value, lambda value, a=low, b=high: a <= value <= b)
        if found.reason == _NO_ERROR and found.value is None:
            state = "not asked"  # no slope is steep enough then; the error tells
        yield Criterion(
            part="Calibration",
            name=_title(metric),
            of="all test images",
            required=f"from {low:g} to {high:g}",
            state=state,
            reason=found.reason or "",
            metric=found,
            challenger=found,
        )


def subgroup_criteria(
    challenger: Model, champion: Model | None, common: CommonImages | None, config: GateConfig
) -> Iterator[Criterion]:
    """Yield each subgroup that does worse than the others, did not in the champion, and got worse.

    Subgroups are compared as the report does, corrected for their number.
    """
    asked = {"part": "Subgroups", "required": "no subgroup newly does worse than the others"}
    whole = {"name": "New failing subgroups", "of": "all subgroups"}
    failing = _failing(challenger.metrics)
    if champion is None:
        told = list_in_words([f"{metric} of {name}" for _, name, metric in failing])
        reason = f"the first model; worse than the others: {told or 'none'}"
        yield Criterion(state="not asked", reason=reason, **whole, **asked)
        return
    before = _failing(champion.metrics)
    if common is None or challenger.metrics is None or champion.metrics is None:
        yield Criterion(state="not known", reason=NO_EVALUATION, **whole, **asked)
        return
    worse = [(one, *_change_in(one, common, challenger)) for one in failing if one not in before]
    worse = [one for one in worse if one[3].value is None or one[3].value < 0]
    if not worse:
        told = list_in_words([f"{metric} of {name}" for _, name, metric in failing])
        reason = f"as before: {told}" if told else "none does worse"
        yield Criterion(state="held", reason=reason, **whole, **asked)
    for (attribute, name, metric), own, other, change in worse:
        yield Criterion(
            name=f"{_title(metric)} of a subgroup",
            of=f"{attribute}: {name}",
            state="held" if config.new_failing_subgroups else "failed",
            reason="worse than the others beyond chance, and less than the champion's",
            metric=change,
            challenger=own,
            champion=other,
            **asked,
        )


def _failing(metrics: Evaluation | None) -> list[tuple[str, str, str]]:
    """Return attribute, name and metric of the subgroups that do worse than the others."""
    return [
        (row.attribute, row.name, name)
        for row in (metrics.subgroups.subgroups if metrics else [])
        for name in DIRECTED
        if (found := row.metrics.get(name)) is not None
        and found.differs
        and found.against is not None
        and (found.against.value or 0) < 0
    ]


def _change_in(
    subgroup: tuple[str, str, str], common: CommonImages, challenger: Model
) -> tuple[Interval, Interval, Interval]:
    attribute, name, metric = subgroup
    ages = AgeGroups(tuple(challenger.settings["age bounds"]))
    images = common.challenger.reset_index()
    for one in find_subgroups(images, ages):
        if (one.attribute, one.name) == (attribute, name):
            return common.difference(metric, one.images)
    none = missing("no common image is of this subgroup")
    return none, none, none


def heat_map_criteria(
    challenger: Model, champion: Model | None, config: GateConfig
) -> Iterator[Criterion]:
    """Yield whether heat maps still point at fractures, by age group."""
    if challenger.explanation is None:
        yield Criterion(
            part="Heat maps",
            name="Heat maps point at fractures",
            of="all age groups",
            required="metrics of heat maps",
            state="not known",
            reason="the explanation is not there",
        )
    explanation = challenger.explanation or {}
    ages = _groups(challenger)
    for name in sorted(explanation, key=lambda one: ages.index(one) if one in ages else len(ages)):
        yield _heat_maps_of(name, explanation[name], champion, config)


def _heat_maps_of(
    name: str, found: GroupExplanation, champion: Model | None, config: GateConfig
) -> Criterion:
    pointing, chance = found.pointing, found.chance if config.above_chance else None
    before = None if champion is None else (champion.explanation or {}).get(name)
    wanted = [] if chance is None else [f"not shown to be below chance ({chance:.2f})"]
    if champion is not None:
        wanted.append(f"at least the champion's less {config.pointing:g}")
    asked: dict[str, Any] = {
        "part": "Heat maps",
        "name": "Heat maps point at fractures",
        "of": name,
        "required": ", ".join(wanted) or "nothing",
        "images": found.with_boxes,
        "metric": pointing,
        "challenger": pointing,
        "champion": before.pointing if before else None,
    }
    if found.with_boxes < config.pointing_images:
        few = f"{found.with_boxes} images with boxes, {config.pointing_images} are asked for"
        return Criterion(state="not asked", reason=few, **asked)
    if pointing.value is None:
        return Criterion(state="not known", reason=pointing.reason or "", **asked)
    if champion is not None and (other := _no_counterpart(found, before)):
        return Criterion(state="not known", reason=other, **asked)
    reasons = []
    highest = pointing.value if pointing.high is None else pointing.high
    if chance is not None and highest < chance:
        reasons.append("points at fractures less often than chance")
    least = None if before is None else before.pointing.value
    if least is not None and pointing.value < least - config.pointing:
        reasons.append("points at fractures less often than the champion's")
    return Criterion(state="failed" if reasons else "held", reason="; ".join(reasons), **asked)


def _no_counterpart(own: GroupExplanation, before: GroupExplanation | None) -> str:
    """Return why a group's heat maps cannot be compared with the champion's, if they cannot."""
    if before is None or before.pointing.value is None:
        return "the champion has no heat maps of this group"
    if own.method != before.method:
        return f"drawn by {own.method}, the champion's by {before.method}"
    return ""


NO_EVALUATION = "an evaluation is not there"
_NO_ERROR = "the images are told apart without an error"
_TITLES = {
    "auroc": "AUROC",
    "ece": "Calibration error",
    "slope": "Calibration slope",
    "observed_expected": "Fractures observed over expected",
}


def both_sides(challenger: Model, champion: Model | None) -> list[tuple[str, Model]]:
    """Return the challenger and, where there is one, the champion, by name."""
    return [("challenger", challenger), *([("champion", champion)] if champion else [])]


def _title(metric: str) -> str:
    return _TITLES.get(metric, metric.capitalize())


def _groups(model: Model) -> list[str]:
    """Return the names of a version's main rows: all images, then the age groups."""
    return [row.name for row in model.metrics.groups] if model.metrics else []


def _row(metrics: Evaluation | None, subset: str | None) -> Row | None:
    """Return the row of a subset of the test images, or of all."""
    if metrics is None or subset is None:
        return metrics.whole if metrics else None
    return next((one for one in metrics.subsets if one.name == subset), None)


def is_known(value: Any, holds: Any) -> State:
    """Return whether a condition holds, or that the value is not known."""
    return "not known" if value is None else "held" if holds(value) else "failed"


def _shown(interval: Interval, holds: Any) -> State:
    """Return whether the lower bound shows what is asked."""
    return is_known(interval.low, holds)


def list_in_words(values: list[Any], by: str = ", ") -> str:
    """Return the first values in words, and how many more there are."""
    more = f" and {len(values) - FEW} more" if len(values) > FEW else ""
    return by.join(map(str, values[:FEW])) + more
