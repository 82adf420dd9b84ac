"""A data set of as many images as wanted, made of a few: other names, patients and bytes.

Not a benchmark: what those that need many images share.
"""

import shutil
from pathlib import Path

import pandas as pd

LABELS = Path("folder_structure/yolov5/labels")


def write_repeated(first: Path, data: Path, size: int) -> pd.DataFrame:
    """Write so many images in the published layout, made of those in a folder; return the table."""
    table = pd.read_csv(
        first / "dataset.csv", dtype=str, keep_default_na=False, encoding="utf-8-sig"
    )
    images = {path.stem: path.read_bytes() for path in first.glob("images*/*")}
    labels = {path.stem: path.read_bytes() for path in (first / LABELS).glob("*")}
    shutil.rmtree(data, ignore_errors=True)
    (data / "images").mkdir(parents=True)
    (data / LABELS).mkdir(parents=True)
    parts = []
    for start in range(0, size, len(table)):
        copied = _as_other_patients(table[: size - start], start)
        for old, new in zip(table["filestem"], copied["filestem"], strict=False):
            # what follows a PNG's end is not read: the same pixels, but another file
            (data / "images" / f"{new}.png").write_bytes(images[old] + str(start).encode())
            (data / LABELS / f"{new}.txt").write_bytes(labels[old])
        parts.append(copied)
    whole = pd.concat(parts)
    write_listing(whole, data)
    return whole


def write_listing(table: pd.DataFrame, data: Path) -> None:
    """Write dataset.csv."""
    table.to_csv(data / "dataset.csv", index=False, encoding="utf-8-sig")


def _as_other_patients(table: pd.DataFrame, start: int) -> pd.DataFrame:
    patient = table["patient_id"].astype(int) + start
    rest = table["filestem"].str.partition("_")[2]
    stems = [f"{one:04d}_{other}" for one, other in zip(patient, rest, strict=True)]
    return table.assign(patient_id=patient.astype(str), filestem=stems)
