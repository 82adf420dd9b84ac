"""The split: each patient in one part only, or it does not exist."""

import logging
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from pedfrac.age_groups import AgeGroups
from pedfrac.config.data import SplitConfig
from pedfrac.data.cohort import count_images
from pedfrac.data.tables import read_table, write_table
from pedfrac.errors import PedfracError
from pedfrac.storage.files import write_json

logger = logging.getLogger(__name__)
PARTS = ("train", "validation", "test", "left_out")
PLACES = PARTS[:3]

# Reasons why an image is left out; they are the keys of the counts in the report.
TEST_PATIENT = "patient is in the test set"
SPLIT_TYPES: dict[str, Any] = {
    "filestem": "str",
    "patient_id": "int64",
    "part": "str",
    "reason": "str",
    "place": "str",
    "fold": "int64",
}
SplitReport = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """A part for every image. It cannot be created where two parts share a patient.

    ``table``, sorted by filestem: filestem, patient_id, ``part`` (one of PARTS), ``reason`` (why
    left out, else ""), ``place`` (the part that the patient belongs to, or "": so that a patient
    whose images are all left out keeps it in the next split) and ``fold`` (-1: no fold).
    Raises PedfracError that names the patients and images at fault.
    """

    table: pd.DataFrame

    def __post_init__(self) -> None:
        missing = {"filestem", "patient_id", "part"} - set(self.table.columns)
        if missing:
            raise PedfracError(f"split: column {', '.join(sorted(missing))} is missing")
        _refuse_unknown_parts(self.table)
        _refuse_repeated_images(self.table)
        refuse_shared_patients(self.table)

    def images(self, part: str) -> list[str]:
        """Return the filestems of a part, sorted."""
        if part not in PARTS:
            raise PedfracError(f"part {part!r} must be one of {', '.join(PARTS)}")
        return sorted(self.table.loc[self.table["part"] == part, "filestem"])


def save_split(split: Split, report: SplitReport, folder: Path) -> None:
    """Write split.csv and split.json; equal splits give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(split.table, folder / "split.csv")
    write_json(folder / "split.json", report)


def load_split(folder: Path) -> Split:
    """Return the split that ``save_split`` wrote; its patients are proven disjoint again."""
    return Split(read_split_table(folder / "split.csv"))


def read_split_table(path: Path) -> pd.DataFrame:
    """Read a split.csv as ``save_split`` wrote it. Raises PedfracError where it is not one."""
    table = read_table(path, SPLIT_TYPES)
    if missing := [name for name in SPLIT_TYPES if name not in table.columns]:
        raise PedfracError(f"{path}: column {', '.join(missing)} is missing; is it a split.csv?")
    return table


# ---- the law of the split ---------------------------------------------------------------------
def _refuse_unknown_parts(table: pd.DataFrame) -> None:
    unknown = table[~table["part"].isin(PARTS)]
    if len(unknown):
        raise PedfracError(
            f"split: part {unknown['part'].iloc[0]!r} of {unknown['filestem'].iloc[0]} "
            f"must be one of {', '.join(PARTS)}"
        )


def _refuse_repeated_images(table: pd.DataFrame) -> None:
    repeated = table.loc[table["filestem"].duplicated(), "filestem"].unique()
    if len(repeated):
        raise PedfracError(
            f"split: {len(repeated)} images are named more than once: {', '.join(repeated[:5])}"
        )


def refuse_shared_patients(table: pd.DataFrame) -> None:
    """Raise PedfracError where a patient is in more than one part."""
    used = table[table["part"] != "left_out"]
    parts = used.groupby("patient_id")["part"].nunique()
    shared = sorted(parts.index[parts > 1])
    if shared:
        few = used[used["patient_id"].isin(shared[:3])]
        named = ", ".join(
            f"{stem} of patient {patient} in {part}"
            for stem, patient, part in zip(
                few["filestem"], few["patient_id"], few["part"], strict=True
            )
        )
        raise PedfracError(
            f"split: {len(shared)} patients are in more than one part, such as: {named}"
        )


def refuse_empty(split: Split, config: SplitConfig) -> None:
    """Raise PedfracError where a part that is needed has no image."""
    for part in ("train", "validation"):
        if not split.images(part):
            advice = f"look at {config.file}" if config.file else "lower split.test_per_year"
            raise PedfracError(
                f"split: no image is left for {part} "
                f"({len(split.images('test'))} of {len(split.table)} images test); {advice}"
            )
    if not split.images("test"):
        logger.warning("the test set is empty")


# ---- the report -------------------------------------------------------------------------------
def describe_split(images: pd.DataFrame, split: Split, ages: AgeGroups) -> dict[str, Any]:
    """Return counts per part and age group, why images are left out, and the proof."""
    left_out = images.loc[images["part"] == "left_out", "reason"].value_counts().sort_index()
    return {
        "parts": {part: count_images(images[images["part"] == part]) for part in PARTS},
        "groups": [
            {"group": group, "name": ages.name(group)}
            | {
                part: count_images(images[(images["part"] == part) & (images["group"] == group)])
                for part in PARTS
            }
            for group in range(len(ages))
        ],
        "left_out": {str(reason): int(count) for reason, count in left_out.items()},
        "folds": _fold_counts(images),
        "disjoint": prove_disjoint(split),
    }


def _fold_counts(images: pd.DataFrame) -> list[dict[str, int]]:
    folded = images[images["fold"] >= 0]
    return [{"fold": int(str(fold)), **count_images(rows)} for fold, rows in folded.groupby("fold")]


def prove_disjoint(split: Split) -> dict[str, Any]:
    """Count the patients of each part and those that two parts share: 0 by the law of Split."""
    patients = {
        part: set(split.table.loc[split.table["part"] == part, "patient_id"]) for part in PLACES
    }
    return {
        "patients": {part: len(members) for part, members in patients.items()},
        "shared": {f"{a}-{b}": len(patients[a] & patients[b]) for a, b in combinations(PLACES, 2)},
    }
