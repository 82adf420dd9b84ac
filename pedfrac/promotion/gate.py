"""Gate: may a challenger replace the champion? Criteria set beforehand, each with its metric.

Pure: it takes what evaluations hold. Not here: where that lies (challenge), how it is shown
(gate_page), and who then decides (promotion).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pedfrac.config.promotion import GateConfig
from pedfrac.promotion.criteria import (
    NO_EVALUATION,
    CommonImages,
    both_sides,
    calibration_criteria,
    common_images,
    floor_criteria,
    heat_map_criteria,
    is_known,
    list_in_words,
    not_worse_criteria,
    subgroup_criteria,
)
from pedfrac.promotion.decision import Criterion, Decision, Model


def decide(
    challenger: Model,
    champion: Model | None,
    config: GateConfig,
    earlier: GateConfig | None = None,
    standard: GateConfig | None = None,
) -> Decision:
    """Return whether a challenger may replace the champion; without one, the floors alone count.

    ``earlier``: the criteria by which the champion was let through. ``standard``: the operator's;
    none: ``config`` is. What differs from either is told.
    """
    changed = _changes(standard.model_dump(), config.model_dump()) if standard else []
    common = common_images(challenger, champion)
    criteria = [
        *_artifacts(challenger, champion),
        *_split(challenger, champion),
        *_test_set(challenger, champion, common, config),
        *_plan(challenger, champion, config),
        *_operators_criteria(changed),
        *_criteria(config, earlier),
        *not_worse_criteria(challenger, champion, common, config),
        *floor_criteria(challenger, config),
        *calibration_criteria(challenger, config),
        *subgroup_criteria(challenger, champion, common, config),
        *heat_map_criteria(challenger, champion, config),
    ]
    return Decision(
        challenger=challenger.version,
        champion=champion.version if champion else None,
        passed=not any(one.blocks for one in criteria),
        criteria=tuple(criteria),
        images=len(common.truth) if common else None,
        patients=common.bootstrap().count if common else None,
        config=config,
        changed=tuple(changed),
    )


def _artifacts(challenger: Model, champion: Model | None) -> Iterator[Criterion]:
    for role, model in both_sides(challenger, champion):
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

    The test patients are those of both versions' test images.
    """
    for role, model in both_sides(challenger, champion):
        found = "the split is not there" if model.shared is None else f"{model.shared} shared"
        yield Criterion(
            part="Split",
            name="Parts of the split share no patient",
            of=role,
            required="0 patients in two parts",
            state=is_known(model.shared, lambda count: count == 0),
            reason=found,
        )
    tested = _tested(challenger, champion)
    for role, model in both_sides(challenger, champion):
        both = None if tested is None or model.learned is None else sorted(tested & model.learned)
        yield Criterion(
            part="Split",
            name="No test patient trained or validated",
            of=role,
            required="0 patients of the comparison's test images",
            state=is_known(both, lambda some: not some),
            reason=_leak(both),
            patients=None if tested is None else len(tested),
        )


def _tested(*models: Model | None) -> set[int] | None:
    found: set[int] = set()
    for model in models:
        if model is not None:
            if model.images is None:
                return None
            found |= set(model.images["patient_id"].tolist())
    return found


def _leak(patients: list[int] | None) -> str:
    if patients is None:
        return "evaluation or split is not there"
    return f"learned from patients {list_in_words(patients)}" if patients else ""


def _test_set(
    challenger: Model, champion: Model | None, common: CommonImages | None, config: GateConfig
) -> Iterator[Criterion]:
    if champion is None:
        return
    asked = {"part": "Test set", "of": "champion's test images"}
    same = f"at least {config.test_images:.0%} scored by both"
    labels = f"at most {config.changed_truth:.0%} with another label"
    if common is None or champion.images is None:
        for name, required in (("Same test images", same), ("Same labels", labels)):
            yield Criterion(
                name=name, required=required, state="not known", reason=NO_EVALUATION, **asked
            )
        return
    share = len(common.truth) / max(1, len(champion.images))
    yield Criterion(
        name="Same test images",
        required=same,
        state="held" if len(common.truth) and share >= config.test_images else "failed",
        reason=f"{len(common.truth)} of {len(champion.images)}",
        images=len(common.truth),
        **asked,
    )
    other = common.truth != common.champion["fracture_visible"].to_numpy(dtype=bool)
    changed = common.challenger.index[other].tolist()
    yield Criterion(
        name="Same labels",
        required=labels,
        state="held" if len(changed) <= config.changed_truth * len(other) else "failed",
        reason=f"{len(changed)} of {len(other)}"
        + (f": {list_in_words(changed)}" if changed else ""),
        images=len(other),
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
            reason=list_in_words(changes, "; "),
            **asked,
        )
    if same:
        yield Criterion(
            name="Unchanged", required="as before", state="held", reason=", ".join(same), **asked
        )


def _operators_criteria(changed: list[str]) -> Iterator[Criterion]:
    """Yield whether the criteria are the operator's, or were changed for this run."""
    yield Criterion(
        part="Plan",
        name="Criteria",
        of="this run",
        required="those of the operator's file",
        state="changed" if changed else "held",
        reason="; ".join(changed),
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
        reason="changed since: " + list_in_words(changes, "; ") if changes else "",
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
