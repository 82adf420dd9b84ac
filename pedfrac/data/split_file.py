"""Splits made elsewhere, read from CSV."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from pedfrac.data.brought_tables import read_brought_table, refuse_repeated
from pedfrac.data.split import PARTS, PLACES, SPLIT_TYPES, refuse_shared_patients
from pedfrac.data.test_set import leave_out
from pedfrac.errors import PedfracError

NOT_NAMED = "not named in the split file"
FILE_PARTS = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}


def read_split_file(path: Path) -> pd.DataFrame:
    """Read a split made elsewhere: columns filestem and split (train, valid or val, test).

    Returns filestem and part (train, validation, test). Raises PedfracError that names the file,
    the line, the value and what is allowed, or the patients that two parts share.
    """
    named = dict(_named_parts(path, read_brought_table(path, ("filestem", "split"))))
    table = pd.DataFrame({"filestem": list(named), "part": list(named.values())}, dtype="str")
    _refuse_shared_stems(table, path)
    return table


def read_previous_split(path: Path) -> pd.DataFrame:
    """Read a split.csv that a person names; it may have been through a spreadsheet.

    Returns what ``read_split_table`` returns of a split that nobody touched. Raises PedfracError
    that names the file, the line, the value and what is allowed.
    """
    rows = read_brought_table(path, tuple(SPLIT_TYPES))
    refuse_repeated(path, rows, "filestem")
    for line, part in rows["part"].items():
        if part not in PARTS:
            raise PedfracError(
                f"{path} line {line}: part {part!r} must be one of {', '.join(PARTS)}"
            )
    numbers = {name: _whole_numbers(path, rows[name]) for name in ("patient_id", "fold")}
    return rows.assign(**numbers).reset_index(drop=True)


def _whole_numbers(path: Path, cells: pd.Series) -> list[int]:
    for line, cell in cells.items():
        if not re.fullmatch(r"-?[0-9]+", cell):
            raise PedfracError(f"{path} line {line}: {cells.name} {cell!r} must be a whole number")
    return [int(cell) for cell in cells]


def _named_parts(path: Path, rows: pd.DataFrame) -> Iterable[tuple[str, str]]:
    lines: dict[str, Any] = {}
    for line, stem, part in zip(rows.index, rows["filestem"], rows["split"], strict=True):
        where = f"{path}, line {line}"
        if not stem:
            raise PedfracError(f"{where}: the filestem is empty")
        if part not in FILE_PARTS:
            raise PedfracError(f"{where}: split {part!r} must be one of {', '.join(FILE_PARTS)}")
        if stem in lines:
            raise PedfracError(f"{where}: {stem} is named on line {lines[stem]} already")
        lines[stem] = line
        yield stem, FILE_PARTS[part]


# ---- a split made elsewhere -------------------------------------------------------------------
def place_by_file(images: pd.DataFrame, path: Path) -> dict[str, Any]:
    """Give every image the part that a split file names; return the counts."""
    named = read_split_file(path)
    parts = named.set_index("filestem")["part"]
    found = images["filestem"].map(parts)
    places = found.dropna().groupby(images["patient_id"]).first()
    images["part"] = found.fillna("left_out").astype("str")
    images["place"] = images["patient_id"].map(places).fillna("").astype("str")
    leave_out(images, found.isna(), NOT_NAMED)
    absent = named.loc[~named["filestem"].isin(images["filestem"]), "filestem"]
    unnamed = images.loc[found.isna(), "filestem"]
    return {
        "name": path.name,
        "images": _by_part(named["part"]),
        "images_in_cohort": _by_part(found.dropna()),
        "images_not_in_cohort": len(absent),
        "not_in_cohort_such_as": absent.head(5).tolist(),
        "cohort_not_named": len(unnamed),
        "not_named_such_as": unnamed.head(5).tolist(),
    }


def _refuse_shared_stems(named: pd.DataFrame, path: Path) -> None:
    """Refuse a file that shares patients, be their images in the cohort or not."""
    table = named.assign(patient_id=named["filestem"].str.split("_").str[0])
    try:
        refuse_shared_patients(table)
    except PedfracError as error:
        raise PedfracError(f"{path}: is no split by patient: {error}") from None


def _by_part(parts: pd.Series) -> dict[str, int]:
    return {part: int((parts == part).sum()) for part in PLACES}
