"""Leakage: the patients that parts of a published split share, and the split that is left.

Not here: the split that trains, which cannot share a patient (splitting), and whose protocol the
published split belongs to (protocols).
"""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from pedfrac.data.split_file import FILE_PARTS
from pedfrac.errors import PedfracError

STRICTEST_LAST = ("train", "validation", "test")
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".txt")


@dataclass(frozen=True)
class Leakage:
    """How many patients and images the parts of a split share, and what leaving them out costs.

    ``given`` and ``kept``: images by part, before and after; ``shared_patients`` are in more than
    one part, ``leaking_patients`` test and also train or validate, and ``leaking_images`` are all
    test images of these; ``repeated_images`` are themselves in more than one part.
    """

    given: dict[str, int]
    kept: dict[str, int]
    patients: int
    shared_patients: int
    test_patients: int
    leaking_patients: int
    leaking_images: int
    repeated_images: int

    @property
    def left_out(self) -> dict[str, int]:
        """Images by part that another, stricter part keeps their patient from."""
        return {part: self.given[part] - self.kept[part] for part in STRICTEST_LAST}

    def counts(self) -> dict[str, Any]:
        """Return all counts as JSON."""
        return asdict(self) | {"left_out": self.left_out}


def read_published_split(path: Path) -> pd.DataFrame:
    """Read a split as published, be it by patient or not; return filestem and part, no row twice.

    ``path``: a CSV with the columns filestem and split (train, valid or val, test), or a folder
    with a list for each part: a CSV with the column filestem (train_data.csv or train.csv …), or a
    text file with a file name a line (train.txt …). An image may be in several parts.
    Raises PedfracError that names the file, the line, what was found and what is allowed.
    """
    table = _read_folder(path) if path.is_dir() else _read_file(path)
    if missing := [part for part in STRICTEST_LAST if not (table["part"] == part).any()]:
        raise PedfracError(f"{path}: names no image for {' and '.join(missing)}")
    return table.drop_duplicates(ignore_index=True)


def free_of_leakage(split: pd.DataFrame) -> tuple[pd.DataFrame, Leakage]:
    """Keep each patient in one part only; return the split that is left and what was shared.

    A patient of any test image tests, one of any validation image validates, and only the others
    train: so no test image is lost. ``split`` as ``read_published_split`` returns it.
    """
    patient = split["filestem"].map(patient_of)
    rank = split["part"].map(STRICTEST_LAST.index)
    kept = split[rank == rank.groupby(patient).transform("max")].reset_index(drop=True)
    test, parts = split["part"] == "test", split["part"].groupby(patient)
    leaking = test & (parts.transform("nunique") > 1)
    return kept, Leakage(
        given=_by_part(split),
        kept=_by_part(kept),
        patients=int(patient.nunique()),
        shared_patients=int((parts.nunique() > 1).sum()),
        test_patients=int(patient[test].nunique()),
        leaking_patients=int(patient[leaking].nunique()),
        leaking_images=int(leaking.sum()),
        repeated_images=int((split.groupby("filestem")["part"].nunique() > 1).sum()),
    )


def patient_of(filestem: str) -> str:
    """Return the patient of an image, which its name begins with."""
    return filestem.split("_")[0]


def _by_part(split: pd.DataFrame) -> dict[str, int]:
    return {part: int((split["part"] == part).sum()) for part in STRICTEST_LAST}


def _read_file(path: Path) -> pd.DataFrame:
    rows = _read_rows(path, "filestem", "split")
    for line, (_, part) in enumerate(rows, start=2):
        if part not in FILE_PARTS:
            raise PedfracError(
                f"{path}, row {line}: split {part!r} must be one of {', '.join(FILE_PARTS)}"
            )
    return _table([(stem, FILE_PARTS[part]) for stem, part in rows])


def _read_folder(folder: Path) -> pd.DataFrame:
    lists: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        part = FILE_PARTS.get(path.stem.lower().removesuffix("_data"))
        if part is None or path.suffix.lower() not in (".csv", ".txt"):
            continue
        if part in lists:
            raise PedfracError(f"{folder}: {lists[part].name} and {path.name} both list {part}")
        lists[part] = path
    if missing := [part for part in STRICTEST_LAST if part not in lists]:
        raise PedfracError(
            f"{folder}: no list for {' and '.join(missing)}; allowed are names such as "
            "train_data.csv, valid.csv and test.txt"
        )
    return _table([(stem, part) for part, path in lists.items() for stem in _stems(path)])


def _stems(path: Path) -> list[str]:
    if path.suffix.lower() == ".csv":
        return [stem for (stem,) in _read_rows(path, "filestem")]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PedfracError(f"{path}: cannot be read ({error})") from None
    return [_stem(line.strip()) for line in lines if line.strip()]


def _stem(name: str) -> str:
    """Return the name of an image from its path, as training lists have it."""
    last = PurePosixPath(name.replace("\\", "/"))
    return last.stem if last.suffix.lower() in IMAGE_ENDINGS else last.name


def _read_rows(path: Path, *columns: str) -> list[tuple[str, ...]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise PedfracError(
                    f"{path}: column {' and '.join(missing)} is missing; it must hold the "
                    f"columns {' and '.join(columns)}"
                )
            rows = [tuple((row[name] or "").strip() for name in columns) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PedfracError(f"{path}: cannot be read as a CSV in UTF-8 ({error})") from None
    for number, row in enumerate(rows, start=2):
        if not row[0]:
            raise PedfracError(f"{path}: a filestem is empty, in row {number}")
    return rows


def _table(rows: list[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["filestem", "part"], dtype="str")
