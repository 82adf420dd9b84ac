"""Preflight: what is known to be wrong before anything is computed, all of it at once.

A retraining takes hours of GPUs. What would end it is looked for first, from configuration, tables
and file names alone, in seconds.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict

from pedfrac.age_groups import AgeGroups
from pedfrac.config.retrain import RetrainConfig
from pedfrac.data import cohort as cohorts
from pedfrac.data import records as record_tables
from pedfrac.data import source as data_source
from pedfrac.data import splitting
from pedfrac.data.image_files import find_rows_with_image
from pedfrac.data.layout import find_label_folder
from pedfrac.data.policy import refuse_unlabelled
from pedfrac.data.split import Split
from pedfrac.errors import PedfracError
from pedfrac.pipeline.data import find_earlier_split, previous_table
from pedfrac.pipeline.keys import store_of
from pedfrac.pipeline.preflight_networks import network_faults
from pedfrac.pipeline.preflight_outputs import output_faults, space_fault
from pedfrac.pipeline.preflight_scope import GENERALIST, WHOLE, Scope
from pedfrac.storage.store import ArtifactStore
from pedfrac.storage.uri import is_remote

KINDS = {True: "fractured", False: "normal"}


class Finding(BaseModel):
    """Something that would stop a run, or weaken what it finds: where, and what to change.

    ``stops``: a run would end there; else it is a note.
    """

    model_config = ConfigDict(frozen=True)
    where: str
    what: str
    stops: bool = True


def preflight(config: RetrainConfig, scope: Scope = WHOLE) -> list[Finding]:
    """Return all that is known to be wrong with a run before it begins; nothing is made.

    ``scope``: what the run trains; only what concerns that is looked at. Raises PedfracError where
    no network is called so.
    """
    scope.require_known(config.cohort.ages.names)
    outputs = [Finding(where=where, what=what) for where, what in output_faults(config, scope)]
    store = None if any(one.where == "artifacts" for one in outputs) else store_of(config)
    found: list[Finding] = []
    images = 0
    if not config.data.images:
        what = "images is off, and networks learn from images; set data.images to true"
        found.append(Finding(where="data.images", what=what))
    try:
        records = _usable_rows(config)
        images = len(records.table)
        found += _split_findings(config, records, store, scope)
    except PedfracError as error:
        found.append(Finding(where="data", what=str(error)))
    found += [_network_finding(config, *fault) for fault in network_faults(config, scope)]
    if store is not None:
        faults = space_fault(config, store, images, scope)
        outputs += [Finding(where=where, what=what) for where, what in faults]
    return found + outputs


def require_sound(config: RetrainConfig, scope: Scope = WHOLE) -> list[Finding]:
    """Return the notes of a preflight; raise PedfracError with all findings that stop a run."""
    found = preflight(config, scope)
    if stopping := [one for one in found if one.stops]:
        told = "; ".join(f"({n}) {one.where}: {one.what}" for n, one in enumerate(stopping, 1))
        raise PedfracError(
            f"nothing was computed, since {len(stopping)} "
            f"{'thing is' if len(stopping) == 1 else 'things are'} wrong: {told}"
        )
    return found


def _network_finding(config: RetrainConfig, where: str, what: str) -> Finding:
    """Return a fault of a network; weights are fetched where it trains, which may be elsewhere."""
    elsewhere = config.runtime.dispatch == "deployments" and where.endswith(".weights")
    return Finding(where=where, what=what, stops=not elsewhere)


def _usable_rows(config: RetrainConfig) -> record_tables.Records:
    """Return the rows that can be used as far as table and file names tell; no image is opened."""
    data = config.data.model_copy(update={"images": False})
    records = record_tables.read_records(data_source.fetched(data))
    if not config.data.images or is_remote(config.data.root):
        return records
    rows = find_rows_with_image(records.table, config.data)
    refuse_unlabelled(rows, find_label_folder(Path(config.data.root)), config.data)
    return replace(records, table=rows.reset_index(drop=True))


def _split_findings(
    config: RetrainConfig,
    records: record_tables.Records,
    store: ArtifactStore | None,
    scope: Scope,
) -> Iterator[Finding]:
    ages = config.cohort.ages
    cohort = cohorts.make_cohort(records, config.cohort).table
    earlier = None if store is None else find_earlier_split(store, config, cohort)
    previous = previous_table(config, earlier)
    split, _ = splitting.make_split(cohort, config.split, ages, previous)
    yield from _part_findings(config, split, cohort, "", scope)
    for fold in range(config.split.held_out if scope.whole else 0):
        cut, _ = splitting.cut_fold(split, cohort, config.split, ages, fold)
        yield from _part_findings(config, cut, cohort, f"fold {fold}: ", scope)


def _part_findings(
    config: RetrainConfig, split: Split, cohort: pd.DataFrame, which: str, scope: Scope
) -> Iterator[Finding]:
    """Yield the networks that cannot be trained or judged, for want of one kind of image."""
    ages = config.cohort.ages
    images = split.table.merge(cohort[["filestem", "age", "fracture_visible"]], on="filestem")
    images["group"] = ages.assign(images["age"])
    if scope.whole and not (images["part"] == "test").any():
        what = (
            "the test set is empty: nothing could be evaluated; look at split.file or test_per_year"
        )
        yield Finding(where="split", what=which + what)
    for part in ("train", "validation", "test") if scope.whole else ("train", "validation"):
        own = images[images["part"] == part]
        if part != "test" and scope.trains_age:
            yield from _age_findings(config, own, f"{which}{part}")
        if len(own) and (lacking := _lacking_kinds(own, ages, scope)):
            yield _lacking_finding(which + part, lacking)


def _age_findings(config: RetrainConfig, images: pd.DataFrame, part: str) -> Iterator[Finding]:
    """Yield why the images of a part cannot train or choose an age classifier."""
    there, names = set(images["group"]), config.cohort.ages.names
    lacking = [name for group, name in enumerate(names) if group not in there]
    if len(names) - len(lacking) < 2:
        yield Finding(
            where="cohort.age_bounds",
            what=f"{part} has images of {len(names) - len(lacking)} age groups; the age classifier "
            "needs two: set other age_bounds",
        )
    elif lacking and part.endswith("validation") and config.age.training.monitor == "auroc":
        yield Finding(
            where="age.training.monitor",
            what=f"{part} has no image of age group {', '.join(lacking)}, so auroc does not exist; "
            "choose f1, accuracy or loss, or other age_bounds",
        )


def _lacking_kinds(images: pd.DataFrame, ages: AgeGroups, scope: Scope) -> list[str]:
    """Return for which ages there is no fractured or no normal image, each with what it lacks."""
    groups = {
        name: images[images["group"] == group]
        for group, name in enumerate(ages.names)
        if scope.whole or scope.trained == name
    }
    if scope.trained == GENERALIST:
        groups = {"all ages": images}
    lacking = []
    for name, own in groups.items():
        kinds = set(own["fracture_visible"].astype(bool))
        if missing := [word for kind, word in KINDS.items() if kind not in kinds]:
            lacking.append(f"{name} (no {', no '.join(missing)})")
    return lacking


def _lacking_finding(part: str, lacking: list[str]) -> Finding:
    judged = part.endswith("test")
    why = "their metrics cannot all be measured" if judged else "their networks cannot be trained"
    return Finding(
        where="cohort.age_bounds",
        what=f"{part} lacks images of {', '.join(lacking)}: {why}; widen the groups "
        "(cohort.age_bounds), or change the split",
        stops=not judged,
    )
