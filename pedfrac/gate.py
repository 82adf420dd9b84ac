"""Gate: may a challenger replace the champion? Criteria set beforehand, each with its figure.

Pure: it takes what evaluations hold. Not here: where that lies (challenge), how it is shown
(gate_page), and who then decides (promotion).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pedfrac.ages import AgeGroups
from pedfrac.config import EvaluationConfig, GateConfig
from pedfrac.errors import PedfracError
from pedfrac.intervals import Interval, missing
from pedfrac.metrics import PatientBootstrap, interval_in_words
from pedfrac.subgroups import find_subgroups

State = Literal["held", "failed", "not known", "not asked"]
SUBSETS = {"no_cast": "no cast", "initial": "initial exam"}
CALLS = ("sensitivity", "specificity")
DIRECTED = ("sensitivity", "specificity", "auroc")  # figures of which less is worse
FEW = 5  # names and values that a reason lists


@dataclass(frozen=True)
class Model:
    """A version as the gate sees it; None is what could not be had, with the reason in ``faults``.

    ``films``: predictions of the test films (see ``evaluation``); ``figures``: what was computed
    of them. ``explanation``: figures of the heat maps by age group. ``learned``: patients that
    trained or validated any network. ``shared``: patients that two parts of the split share.
    ``faults``: by the name of an artifact, what is missing or does not verify; ``verified``: those
    that do. ``settings``: how it was made, by what may change (see ``GateConfig.may_change``).
    """

    version: int
    films: pd.DataFrame | None
    figures: Mapping[str, Any] | None
    explanation: Mapping[str, Any] | None
    learned: frozenset[int] | None
    shared: int | None
    settings: Mapping[str, Any]
    faults: Mapping[str, str] = field(default_factory=dict)
    verified: tuple[str, ...] = ()

    @cached_property
    def called(self) -> pd.DataFrame:
        """The test films with the bundle's call of each, by filestem."""
        if self.films is None or self.figures is None:
            raise PedfracError(f"version {self.version}: its evaluation is not there")
        limits = np.asarray(self.figures["operating"]["thresholds"]["bundle"]["groups"])
        own = limits[self.films["group"].to_numpy(dtype=np.int64)]
        return self.films.assign(call=self.films["bundle"] >= own).set_index("filestem")


class Criterion(BaseModel):
    """One thing that must hold: what is asked, of whom, what was found."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    part: str
    name: str
    of: str
    required: str
    state: State
    reason: str = ""
    figure: Interval | None = None
    champion: Interval | None = None
    challenger: Interval | None = None
    films: int | None = None
    patients: int | None = None

    @property
    def blocks(self) -> bool:
        """Whether nothing may be promoted because of this: it failed, or nobody knows."""
        return self.state in ("failed", "not known")

    @property
    def is_difference(self) -> bool:
        """Whether the figure is that of the challenger less the champion's."""
        return self.figure is not None and self.figure != self.challenger

    @property
    def found(self) -> str:
        """The figure with its interval, a difference with its sign."""
        if self.figure is None:
            return ""
        if self.figure["low"] is None or not self.is_difference:
            return interval_in_words(self.figure)
        value, low, high = (f"{self.figure[end]:+.3f}" for end in ("value", "low", "high"))
        return f"{value} ({low} to {high})"

    def in_words(self) -> str:
        """Return what was asked and found, in a line."""
        found = self.found
        told = "; ".join(part for part in (found, self.reason) if part)
        return f"{self.name} ({self.of}): {self.state}, {self.required}" + (
            f", found {told}" if told else ""
        )


class Decision(BaseModel):
    """What the gate says of a challenger, and by which criteria."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    challenger: int
    champion: int | None
    passed: bool
    criteria: tuple[Criterion, ...]
    films: int | None
    patients: int | None
    config: GateConfig

    @property
    def blocking(self) -> list[Criterion]:
        """The criteria for which the challenger is refused."""
        return [one for one in self.criteria if one.blocks]

    @property
    def title(self) -> str:
        """What was compared with what."""
        against = "no champion" if self.champion is None else f"champion version {self.champion}"
        return f"Challenger version {self.challenger} against {against}"

    def in_words(self) -> str:
        """Return the outcome in a line; every criterion that refuses is named."""
        if self.passed:
            held = sum(one.state == "held" for one in self.criteria)
            return f"{self.title}: all {held} criteria hold"
        return f"{self.title}: refused by the gate: " + "; ".join(
            one.in_words() for one in self.blocking
        )


def decide(
    challenger: Model,
    champion: Model | None,
    config: GateConfig,
    earlier: GateConfig | None = None,
) -> Decision:
    """Return whether a challenger may replace the champion; without one, the floors alone count.

    ``earlier``: the criteria by which the champion was let through; what differs is told.
    """
    common = _common(challenger, champion)
    criteria = [
        *_artifacts(challenger, champion),
        *_split(challenger, champion),
        *_test_set(challenger, champion, common, config),
        *_plan(challenger, champion, config),
        *_criteria(config, earlier),
        *_not_worse(challenger, champion, common, config),
        *_floors(challenger, config),
        *_calibration(challenger, config),
        *_subgroups(challenger, champion, common, config),
        *_heat_maps(challenger, champion, config),
    ]
    return Decision(
        challenger=challenger.version,
        champion=champion.version if champion else None,
        passed=not any(one.blocks for one in criteria),
        criteria=tuple(criteria),
        films=len(common.truth) if common else None,
        patients=common.bootstrap().count if common else None,
        config=config,
    )


class _Common(NamedTuple):
    """The test films that both versions scored, one row each, in one order."""

    challenger: pd.DataFrame
    champion: pd.DataFrame

    @property
    def truth(self) -> NDArray[np.bool_]:
        return self.challenger["fracture_visible"].to_numpy(dtype=bool)

    def bootstrap(self, some: NDArray[np.bool_] | None = None) -> PatientBootstrap:
        how = EvaluationConfig()
        patients = self.challenger["patient_id"].to_numpy()
        patients = patients if some is None else patients[some]
        return PatientBootstrap(patients, how.resamples, how.seed, how.interval)

    def difference(
        self, figure: str, some: NDArray[np.bool_] | None = None
    ) -> tuple[Interval, Interval, Interval]:
        """Return a figure of the challenger, of the champion, and the first less the second."""
        some = np.ones(len(self.truth), bool) if some is None else some
        patients, truth = self.bootstrap(some), self.truth[some]
        sides = self.challenger[some], self.champion[some]
        if figure == "auroc":
            scores = [side["bundle"].to_numpy(dtype=np.float64) for side in sides]
            own = [patients.auroc_interval(truth, score) for score in scores]
            return own[0], own[1], patients.auroc_difference(truth, scores[0], scores[1])
        among = truth if figure == "sensitivity" else ~truth
        hits = [side["call"].to_numpy(dtype=bool) == truth for side in sides]
        kind = "fractured" if figure == "sensitivity" else "normal"
        own = [patients.rate_interval(hit, among, f"no {kind} films") for hit in hits]
        return own[0], own[1], patients.rate_difference(hits[0], hits[1], among)


def _common(challenger: Model, champion: Model | None) -> _Common | None:
    if champion is None or challenger.films is None or champion.films is None:
        return None
    own, other = challenger.called, champion.called
    both = own.index.intersection(other.index).sort_values()
    return _Common(own.loc[both], other.loc[both])


def _artifacts(challenger: Model, champion: Model | None) -> Iterator[Criterion]:
    for role, model in _sides(challenger, champion):
        told = [f"{name} {fault}" for name, fault in sorted(model.faults.items())]
        yield Criterion(
            part="Artifacts",
            name="All artifacts verify",
            of=role,
            required="every file is there as it was made",
            state="failed" if told else "held",
            reason="; ".join(told) or ", ".join(model.verified),
        )


def _split(challenger: Model, champion: Model | None) -> Iterator[Criterion]:
    """Yield the proof that the parts share no patient, and that no test patient was learned from.

    The test patients are those of both versions' test films.
    """
    for role, model in _sides(challenger, champion):
        found = "the split is not there" if model.shared is None else f"{model.shared} shared"
        yield Criterion(
            part="Split",
            name="Parts of the split share no patient",
            of=role,
            required="0 patients in two parts",
            state=_known(model.shared, lambda count: count == 0),
            reason=found,
        )
    tested = _tested(challenger, champion)
    for role, model in _sides(challenger, champion):
        both = None if tested is None or model.learned is None else sorted(tested & model.learned)
        yield Criterion(
            part="Split",
            name="No test patient trained or validated",
            of=role,
            required="0 patients of the comparison's test films",
            state=_known(both, lambda some: not some),
            reason=_leak(both),
            patients=None if tested is None else len(tested),
        )


def _tested(*models: Model | None) -> set[int] | None:
    found: set[int] = set()
    for model in models:
        if model is not None:
            if model.films is None:
                return None
            found |= set(model.films["patient_id"].tolist())
    return found


def _leak(patients: list[int] | None) -> str:
    if patients is None:
        return "evaluation or split is not there"
    return f"learned from patients {_listed(patients)}" if patients else ""


def _test_set(
    challenger: Model, champion: Model | None, common: _Common | None, config: GateConfig
) -> Iterator[Criterion]:
    if champion is None:
        return
    asked = {"part": "Test set", "of": "champion's test films"}
    same = f"at least {config.test_films:.0%} scored by both"
    labels = f"at most {config.changed_truth:.0%} with another label"
    if common is None or champion.films is None:
        for name, required in (("Same test films", same), ("Same labels", labels)):
            yield Criterion(
                name=name, required=required, state="not known", reason=_NO_EVALUATION, **asked
            )
        return
    share = len(common.truth) / max(1, len(champion.films))
    yield Criterion(
        name="Same test films",
        required=same,
        state="held" if len(common.truth) and share >= config.test_films else "failed",
        reason=f"{len(common.truth)} of {len(champion.films)}",
        films=len(common.truth),
        **asked,
    )
    other = common.truth != common.champion["fracture_visible"].to_numpy(dtype=bool)
    changed = common.challenger.index[other].tolist()
    yield Criterion(
        name="Same labels",
        required=labels,
        state="held" if len(changed) <= config.changed_truth * len(other) else "failed",
        reason=f"{len(changed)} of {len(other)}" + (f": {_listed(changed)}" if changed else ""),
        films=len(other),
        **asked,
    )


def _plan(challenger: Model, champion: Model | None, config: GateConfig) -> Iterator[Criterion]:
    """Yield what differs in how the two were made, and whether it may."""
    if champion is None:
        return
    asked = {"part": "Plan", "of": "challenger less champion"}
    names = sorted(challenger.settings.keys() | champion.settings.keys())
    same = [one for one in names if challenger.settings.get(one) == champion.settings.get(one)]
    for name in (one for one in names if one not in same):
        changes = _changes(champion.settings.get(name), challenger.settings.get(name))
        allowed = name in config.may_change
        yield Criterion(
            name=f"Change of {name}",
            required="may change" if allowed else "must not change",
            state="held" if allowed else "failed",
            reason=_listed(changes, "; "),
            **asked,
        )
    if same:
        yield Criterion(
            name="Unchanged", required="as before", state="held", reason=", ".join(same), **asked
        )


def _criteria(config: GateConfig, earlier: GateConfig | None) -> Iterator[Criterion]:
    """Yield whether the criteria are those of the last promotion; changing them is a decision."""
    if earlier is None:
        return
    changes = _changes(earlier.model_dump(), config.model_dump())
    yield Criterion(
        part="Plan",
        name="Criteria",
        of="gate",
        required="as when the champion was let through",
        state="not asked" if changes else "held",
        reason="changed since: " + _listed(changes, "; ") if changes else "",
    )


def _changes(before: Any, after: Any, name: str = "") -> list[str]:
    """Return what differs in two settings, a line for each value."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            line
            for key in sorted(before.keys() | after.keys())
            for line in _changes(before.get(key), after.get(key), f"{name}.{key}" if name else key)
        ]
    if before == after:
        return []
    was, now = (
        ", ".join(map(str, one)) if isinstance(one, list | tuple) else str(one)
        for one in (before, after)
    )
    return [f"{name} {was} → {now}".strip()]


def _not_worse(
    challenger: Model, champion: Model | None, common: _Common | None, config: GateConfig
) -> Iterator[Criterion]:
    if champion is None:
        yield Criterion(
            part="Not worse",
            name="Not worse than the champion",
            of="common test films",
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
    for figure, margin in margins.items():
        yield _not_worse_by(figure, margin, "all common films", common)
    names = [row["name"] for row in (challenger.figures or {}).get("groups", [])][1:]
    for group, name in enumerate(names):
        some = None
        if common is not None:
            some = common.challenger["group"].to_numpy() == group
        yield _not_worse_by(
            "auroc", config.margins.auroc_of_group, name, common, some, config.patients
        )


def _not_worse_by(
    figure: str,
    margin: float,
    of: str,
    common: _Common | None,
    some: NDArray[np.bool_] | None = None,
    least: int = 0,
) -> Criterion:
    asked = {
        "part": "Not worse",
        "name": f"{_title(figure)} not worse",
        "of": of,
        "required": f"challenger less champion above −{margin:g}",
    }
    if common is None:
        return Criterion(state="not known", reason=_NO_EVALUATION, **asked)
    some = np.ones(len(common.truth), bool) if some is None else some
    counts = {"films": int(some.sum()), "patients": common.bootstrap(some).count}
    few = _fewest(common, some)
    if few < least:
        reason = f"{few} patients with or without a fracture, {least} are asked for"
        return Criterion(state="not asked", reason=reason, **asked, **counts)
    own, other, change = common.difference(figure, some)
    return Criterion(
        state=_shown(change, lambda low: low > -margin or (low == 0 == margin)),
        reason=change.get("reason", ""),
        figure=change,
        champion=other,
        challenger=own,
        **asked,
        **counts,
    )


def _fewest(common: _Common, some: NDArray[np.bool_]) -> int:
    """Return how many patients have fractured films, or normal ones, whichever are fewer."""
    patients = common.challenger["patient_id"].to_numpy()
    return min(len(np.unique(patients[some & kind])) for kind in (common.truth, ~common.truth))


def _floors(challenger: Model, config: GateConfig) -> Iterator[Criterion]:
    for name, floor in config.floors.model_dump().items():
        figure, _, subset = name.partition("_")
        row = _row(challenger.figures, SUBSETS.get(subset))
        found = _bundle(row).get(figure) or missing(_NO_EVALUATION)
        yield Criterion(
            part="Floors",
            name=f"{_title(figure)} floor",
            of=SUBSETS.get(subset, "all test films"),
            required=f"lower bound at least {floor:g}",
            state="held" if floor == 0 else _shown(found, lambda low, f=floor: low >= f),
            reason=found.get("reason", ""),
            figure=found,
            challenger=found,
            films=row.get("images"),
            patients=row.get("patients"),
        )


def _calibration(challenger: Model, config: GateConfig) -> Iterator[Criterion]:
    """Yield the bounds of calibration on all test films; values are judged, not their intervals."""
    whole = ((challenger.figures or {}).get("calibration") or {"groups": []})["groups"]
    after = whole[0]["after"] if whole else {}
    bounds: dict[str, Sequence[float]] = {
        "slope": config.slope,
        "observed_expected": config.observed_expected,
    }
    if config.calibration_error is not None:
        bounds = {"ece": (0, config.calibration_error)} | bounds
    for figure, (low, high) in bounds.items():
        found = after.get(figure) or missing(_NO_EVALUATION)
        state = _known(found["value"], lambda value, a=low, b=high: a <= value <= b)
        if found["value"] is None and found["reason"] == _NO_ERROR:
            state = "not asked"  # no slope is steep enough then; the error tells
        yield Criterion(
            part="Calibration",
            name=_title(figure),
            of="all test films",
            required=f"from {low:g} to {high:g}",
            state=state,
            reason=found.get("reason", ""),
            figure=found,
            challenger=found,
        )


def _subgroups(
    challenger: Model, champion: Model | None, common: _Common | None, config: GateConfig
) -> Iterator[Criterion]:
    """Yield each subgroup that does worse than the others, did not in the champion, and got worse.

    Subgroups are compared as the report does, corrected for their number.
    """
    asked = {"part": "Subgroups", "required": "no subgroup newly does worse than the others"}
    whole = {"name": "New failing subgroups", "of": "all subgroups"}
    failing = _failing(challenger.figures)
    if champion is None:
        told = _listed([f"{figure} of {name}" for _, name, figure in failing])
        reason = f"the first model; worse than the others: {told or 'none'}"
        yield Criterion(state="not asked", reason=reason, **whole, **asked)
        return
    before = _failing(champion.figures)
    if common is None or challenger.figures is None or champion.figures is None:
        yield Criterion(state="not known", reason=_NO_EVALUATION, **whole, **asked)
        return
    worse = [(one, *_change_in(one, common, challenger)) for one in failing if one not in before]
    worse = [one for one in worse if one[3]["value"] is None or one[3]["value"] < 0]
    if not worse:
        told = _listed([f"{figure} of {name}" for _, name, figure in failing])
        reason = f"as before: {told}" if told else "none does worse"
        yield Criterion(state="held", reason=reason, **whole, **asked)
    for (attribute, name, figure), own, other, change in worse:
        yield Criterion(
            name=f"{_title(figure)} of a subgroup",
            of=f"{attribute}: {name}",
            state="held" if config.new_failing_subgroups else "failed",
            reason="worse than the others beyond chance, and less than the champion's",
            figure=change,
            challenger=own,
            champion=other,
            **asked,
        )


def _failing(figures: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Return attribute, name and figure of the subgroups that do worse than the others."""
    return [
        (row["attribute"], row["name"], figure)
        for row in ((figures or {}).get("subgroups") or {"subgroups": []})["subgroups"]
        for figure in DIRECTED
        if (found := row["figures"].get(figure))
        and found["differs"]
        and (found["against"] or {"value": 0})["value"] < 0
    ]


def _change_in(
    subgroup: tuple[str, str, str], common: _Common, challenger: Model
) -> tuple[Interval, Interval, Interval]:
    attribute, name, figure = subgroup
    ages = AgeGroups(tuple(challenger.settings["age bounds"]))
    films = common.challenger.reset_index()
    for one in find_subgroups(films, ages):
        if (one.attribute, one.name) == (attribute, name):
            return common.difference(figure, one.films)
    none = missing("no common film is of this subgroup")
    return none, none, none


def _heat_maps(
    challenger: Model, champion: Model | None, config: GateConfig
) -> Iterator[Criterion]:
    """Yield whether heat maps still point at fractures, by age group."""
    if challenger.explanation is None:
        yield Criterion(
            part="Heat maps",
            name="Heat maps point at fractures",
            of="all age groups",
            required="figures of heat maps",
            state="not known",
            reason="the explanation is not there",
        )
    explanation = challenger.explanation or {}
    ages = [row["name"] for row in (challenger.figures or {}).get("groups", [])]
    for name in sorted(explanation, key=lambda one: ages.index(one) if one in ages else len(ages)):
        yield _heat_maps_of(name, explanation[name], champion, config)


def _heat_maps_of(
    name: str, found: Mapping[str, Any], champion: Model | None, config: GateConfig
) -> Criterion:
    pointing, chance = found["pointing"], found["chance"] if config.above_chance else None
    before = None if champion is None else (champion.explanation or {}).get(name)
    wanted = [] if chance is None else [f"not shown to be below chance ({chance:.2f})"]
    if champion is not None:
        wanted.append(f"at least the champion's less {config.pointing:g}")
    asked: dict[str, Any] = {
        "part": "Heat maps",
        "name": "Heat maps point at fractures",
        "of": name,
        "required": ", ".join(wanted) or "nothing",
        "films": found["with_boxes"],
        "figure": pointing,
        "challenger": pointing,
        "champion": before["pointing"] if before else None,
    }
    if found["with_boxes"] < config.pointing_films:
        few = f"{found['with_boxes']} films with boxes, {config.pointing_films} are asked for"
        return Criterion(state="not asked", reason=few, **asked)
    if pointing["value"] is None:
        return Criterion(state="not known", reason=pointing["reason"], **asked)
    if champion is not None and (other := _no_counterpart(found, before)):
        return Criterion(state="not known", reason=other, **asked)
    reasons = []
    highest = pointing["value"] if pointing["high"] is None else pointing["high"]
    if chance is not None and highest < chance:
        reasons.append("points at fractures less often than chance")
    if before is not None and pointing["value"] < before["pointing"]["value"] - config.pointing:
        reasons.append("points at fractures less often than the champion's")
    return Criterion(state="failed" if reasons else "held", reason="; ".join(reasons), **asked)


def _no_counterpart(own: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    """Return why a group's heat maps cannot be compared with the champion's, if they cannot."""
    if before is None or before["pointing"]["value"] is None:
        return "the champion has no heat maps of this group"
    if own["method"] != before["method"]:
        return f"drawn by {own['method']}, the champion's by {before['method']}"
    return ""


_NO_EVALUATION = "an evaluation is not there"
_NO_ERROR = "the films are told apart without an error"
_TITLES = {
    "auroc": "AUROC",
    "ece": "Calibration error",
    "slope": "Calibration slope",
    "observed_expected": "Fractures observed over expected",
}


def _sides(challenger: Model, champion: Model | None) -> list[tuple[str, Model]]:
    return [("challenger", challenger), *([("champion", champion)] if champion else [])]


def _title(figure: str) -> str:
    return _TITLES.get(figure, figure.capitalize())


def _row(figures: Mapping[str, Any] | None, subset: str | None) -> Mapping[str, Any]:
    """Return the row of a subset of the test films, or of all."""
    if not figures:
        return {}
    if subset is None:
        row: Mapping[str, Any] = figures["groups"][0]
        return row
    return next((one for one in figures["subsets"] if one["name"] == subset), {})


def _bundle(row: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (row.get("models") or {}).get("bundle") or {}
    return found


def _known(value: Any, holds: Any) -> State:
    return "not known" if value is None else "held" if holds(value) else "failed"


def _shown(interval: Interval, holds: Any) -> State:
    """Return whether the lower bound shows what is asked."""
    return _known(interval["low"], holds)


def _listed(values: list[Any], by: str = ", ") -> str:
    more = f" and {len(values) - FEW} more" if len(values) > FEW else ""
    return by.join(map(str, values[:FEW])) + more
