"""Cohort: the images that take part, and what each exclusion removed.

Not here: faults of the data (records) and who trains or tests (splitting).
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pedfrac.age_groups import AgeGroups
from pedfrac.config.data import CohortConfig
from pedfrac.data.records import Records
from pedfrac.data.schema import TABLE_TYPES
from pedfrac.data.tables import read_table, write_table
from pedfrac.errors import PedfracError
from pedfrac.storage.files import write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cohort:
    """The images that take part.

    ``table``: their rows of ``Records.table``, sorted by filestem.
    ``steps``: one dict per step in order: step, images, patients, fractured, normal, removed.
    ``groups``: one dict per age group, youngest first: group, name, from, to (years), and the
    counts ``before`` and ``after`` the exclusions: images, patients, fractured, normal.
    An age group without images stands there with zeros.
    """

    table: pd.DataFrame
    steps: list[dict[str, Any]]
    groups: list[dict[str, Any]]


def make_cohort(records: Records, config: CohortConfig) -> Cohort:
    """Leave out images by age, metal, diagnosis, cast, osteopenia and projection, in this order.

    Raises PedfracError where no image is left, naming what each step removed.
    """
    ages = config.ages
    table = records.table
    steps = [{"step": "usable records", "removed": 0, **count_images(table)}]
    table = _take(table, "age within bounds", ages.assign(table["age"]) >= 0, steps)
    before = table
    for name, keep in _exclusions(table, config):
        table = _take(table, name, keep[table.index].to_numpy(), steps)
    if table.empty:
        removed = ", ".join(f"{step['step']} −{step['removed']}" for step in steps[1:])
        raise PedfracError(f"the cohort is empty: {steps[0]['images']} usable records, {removed}")
    return Cohort(table.reset_index(drop=True), steps, _group_counts(before, table, ages))


def count_images(table: pd.DataFrame) -> dict[str, int]:
    """Return images, patients, fractured and normal of a table of images."""
    fractured = int(table["fracture_visible"].sum())
    return {
        "images": len(table),
        "patients": int(table["patient_id"].nunique()),
        "fractured": fractured,
        "normal": len(table) - fractured,
    }


def save_cohort(cohort: Cohort, folder: Path) -> None:
    """Write cohort.csv (all columns) and cohort.json (steps, groups)."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(cohort.table, folder / "cohort.csv")
    write_json(folder / "cohort.json", {"steps": cohort.steps, "groups": cohort.groups})


def load_cohort(folder: Path) -> Cohort:
    """Return what ``save_cohort`` wrote, with the same values and types."""
    table = read_table(folder / "cohort.csv", TABLE_TYPES)
    counts = json.loads((folder / "cohort.json").read_text())
    return Cohort(table, counts["steps"], counts["groups"])


def _exclusions(table: pd.DataFrame, config: CohortConfig) -> Iterator[tuple[str, pd.Series]]:
    """Yield the name of each configured exclusion and which images of the table it keeps."""
    if config.exclude_metal:
        yield "without metal", ~table["metal"]
    if config.exclude_uncertain:
        yield "diagnosis certain", ~table["diagnosis_uncertain"]
    if config.exclude_cast:
        yield "without cast", ~table["cast"]
    if config.exclude_osteopenia:
        yield "without osteopenia", ~table["osteopenia"]
    if set(config.projections) != {1, 2, 3}:
        kept = ", ".join(map(str, sorted(set(config.projections))))
        yield f"projection {kept}", table["projection"].isin(config.projections)


def _take(
    table: pd.DataFrame, name: str, keep: np.ndarray, steps: list[dict[str, Any]]
) -> pd.DataFrame:
    kept = table[keep]
    steps.append({"step": name, "removed": len(table) - len(kept), **count_images(kept)})
    logger.info("%s: %d images, %d removed", name, len(kept), len(table) - len(kept))
    return kept


def _group_counts(
    before: pd.DataFrame, after: pd.DataFrame, ages: AgeGroups
) -> list[dict[str, Any]]:
    first, last = ages.assign(before["age"]), ages.assign(after["age"])
    return [
        {
            "group": group,
            "name": ages.name(group),
            "from": float(ages.bounds[group]),
            "to": float(ages.bounds[group + 1]),
            "before": count_images(before[first == group]),
            "after": count_images(after[last == group]),
        }
        for group in range(len(ages))
    ]
