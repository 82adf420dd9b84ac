"""Policy: how much of a data set may be unlabelled or unusable before a run stops.

A folder of labels that is there but holds none would else train with every side marker in place.
"""

import os
from collections.abc import Container, Sequence
from pathlib import Path

import pandas as pd

from pedfrac.config.data import DataConfig
from pedfrac.data.issues import examples_of
from pedfrac.data.layout import CSV_NAME, folder_names
from pedfrac.data.schema import CLASSES
from pedfrac.errors import PedfracError

FRACTURE = str(CLASSES.index("fracture"))


def refuse_unlabelled(rows: pd.DataFrame, folder: Path, config: DataConfig) -> None:
    """Raise PedfracError where too few images have a label file, or no fractured one a fracture.

    ``rows``: filestem and fracture_visible of each image; ``folder`` of the labels.
    """
    if config.unlabelled == "allow" or rows.empty:
        return
    names = {name.removesuffix(".txt") for name in folder_names(folder) if name.endswith(".txt")}
    without = [stem for stem in rows["filestem"] if stem not in names]
    if len(without) > config.unlabelled_allowed * len(rows):
        raise PedfracError(
            f"{folder}: {len(without)} of {len(rows)} images have no label file here "
            f"({_some(without)}){_misplaced(folder)}, so their side markers would stay; "
            f"{config.unlabelled_allowed:.0%} are allowed: complete the labels, raise "
            "data.unlabelled_allowed, or set data.unlabelled to allow"
        )
    fractured = rows.loc[rows["fracture_visible"].astype(bool), "filestem"]
    if len(fractured) and not any(_has_fracture(folder, stem, names) for stem in fractured):
        raise PedfracError(
            f"{folder}: none of {len(fractured)} fractured images has a fracture box (class "
            f"{FRACTURE}); are these labels of another data set or with other classes? Set "
            "data.unlabelled to allow to go on without checked flags and located heat maps"
        )


def refuse_mostly_dropped(issues: pd.DataFrame, rows: int, config: DataConfig) -> None:
    """Raise PedfracError where more of the rows are left out than allowed, with the reasons.

    Rows without an image do not count: ``config.missing`` is for them.
    """
    dropped = issues[issues["dropped"]]
    missing = dropped["kind"] == "image-missing"
    rows -= dropped.loc[missing, "line"].nunique()
    dropped = dropped[~missing]
    lines = dropped["line"].nunique()
    if lines > config.dropped_allowed * rows:
        raise PedfracError(
            f"{Path(config.root) / CSV_NAME}: {lines} of {rows} rows cannot be used, "
            f"{config.dropped_allowed:.0%} are allowed; {examples_of(dropped)}; mend them, or "
            "raise data.dropped_allowed"
        )


def _has_fracture(folder: Path, stem: str, names: Container[str]) -> bool:
    if stem not in names:
        return False
    try:
        text = (folder / f"{stem}.txt").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False  # an issue of that image
    return any(line.split()[:1] == [FRACTURE] for line in text.splitlines())


def _misplaced(folder: Path) -> str:
    """Say where files lie that may be meant; empty where there are none."""
    found = []
    below = sum(
        name.lower().endswith(".txt")
        for path, _, names in os.walk(folder)
        if Path(path) != folder
        for name in names
    )
    if below:
        found.append(f"{below} lie in folders below it, which are not looked into")
    names = folder_names(folder)
    if others := [one for one in names if one.lower().endswith(".txt") and one[-4:] != ".txt"]:
        found.append(f"{len(others)} end in {others[0][-4:]}, not in .txt")
    if not names and not below:
        found.append("it is empty")
    return f"; {', and '.join(found)}" if found else ""


def _some(stems: Sequence[str]) -> str:
    return f"{', '.join(stems[:3])}{' …' if len(stems) > 3 else ''}"
