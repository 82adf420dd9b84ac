"""YOLO label files, checked and read into boxes."""

import math
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from pedfrac.data.issues import IssueLog
from pedfrac.data.layout import CSV_NAME, folder_names
from pedfrac.data.schema import BOX_NUMBERS, BOX_TYPES, CLASSES
from pedfrac.data.tables import as_table

Box = tuple[int, float, float, float, float]
BOX_TOLERANCE = 1e-3  # share of the side by which rounding may push a box over the edge


# ---- labels -----------------------------------------------------------------------------------
def add_labels(
    rows: pd.DataFrame, folder: Path, ledger: IssueLog
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows whose label file is sound and agrees with their flags, and their boxes."""
    names = {name.removesuffix(".txt") for name in folder_names(folder)}
    for stem in sorted(names.difference(ledger.stems)):
        reason = f"no row of {CSV_NAME} names this file"
        ledger.note("label-without-row", "labels", stem, reason, stem)
    table = as_table(_boxes_of(rows, names, folder, ledger), {"line": "int64"} | BOX_NUMBERS)
    rows = ledger.keep(rows)
    for column, name in (("fracture_visible", "fracture"), ("metal", "metal")):
        _check_flag(rows, table, column, name, ledger)
    rows = ledger.keep(rows)
    table = table[table["line"].isin(rows.index)].reset_index(drop=True)
    stems = rows["filestem"].loc[table["line"]].array
    return rows, table.assign(filestem=stems)[list(BOX_TYPES)]


def _boxes_of(
    rows: pd.DataFrame, names: Container[str], folder: Path, ledger: IssueLog
) -> Iterator[tuple[Any, ...]]:
    """Yield the boxes of images in order of their names, each with the image's row."""
    row: Any
    for row in rows[["filestem", "width", "height"]].sort_values("filestem").itertuples():
        if row.filestem in names:
            yield from _read_labels(folder / f"{row.filestem}.txt", row, ledger)
        else:
            reason = "no label file: taken as an image without boxes"
            ledger.note("label-missing", "labels", "", reason, row.filestem, row.Index)


def _read_labels(path: Path, row: Any, ledger: IssueLog) -> list[tuple[Any, ...]]:
    """Return a label file's boxes with their row; a bad line drops that, by an issue of its own."""
    boxes, faults = read_boxes(path, row.width, row.height)
    for fault in faults:
        ledger.drop(row.Index, fault.kind, "labels", fault.value or path.name, fault.reason)
    return [(row.Index, *box) for box in boxes]


class LabelFault(Exception):
    """A line of a label file that is wrong: kind of issue, reason, and the line (empty: all)."""

    def __init__(self, kind: str, reason: str, value: str = ""):
        super().__init__(reason)
        self.kind, self.reason, self.value = kind, reason, value


def read_boxes(path: Path, width: int, height: int) -> tuple[list[Box], list[LabelFault]]:
    """Return the boxes of a YOLO file of an image of so many pixels, and what is wrong with it.

    A box is its class and, as shares of the sides, its centre (x, y), width and height.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return [], [LabelFault("label-unreadable", f"is not text ({error})")]
    tolerance = (
        max(BOX_TOLERANCE, 1 / width) + 1e-9,
        max(BOX_TOLERANCE, 1 / height) + 1e-9,
    )
    boxes, faults = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            boxes.append(_parse_box(line, tolerance))
        except LabelFault as fault:
            reason = f"line {number} of the label file: {fault.reason}"
            faults.append(LabelFault(fault.kind, reason, line))
    return boxes, faults


def _parse_box(line: str, tolerance: tuple[float, float]) -> Box:
    """Return class and box of a YOLO line. Raises LabelFault."""
    try:
        name, *numbers = line.split()
        class_id = int(name)
        xc, yc, w, h = map(float, numbers)
    except ValueError:
        raise LabelFault("label-malformed", "must be: class xc yc w h") from None
    if not 0 <= class_id < len(CLASSES):
        raise LabelFault("label-class", f"class {class_id} must be 0 to {len(CLASSES) - 1}")
    if not all(map(math.isfinite, (xc, yc, w, h))):
        raise LabelFault("label-malformed", "must hold finite numbers")
    if w <= 0 or h <= 0:
        raise LabelFault("label-box", "the box must have a positive width and height")
    over = (w / 2 - xc, xc + w / 2 - 1), (h / 2 - yc, yc + h / 2 - 1)
    if any(max(sides) > most for sides, most in zip(over, tolerance, strict=True)):
        raise LabelFault("label-box", "the box must lie within the image")
    return class_id, xc, yc, w, h


def _check_flag(
    rows: pd.DataFrame, boxes: pd.DataFrame, column: str, name: str, ledger: IssueLog
) -> None:
    """Drop images whose box and flag disagree; a dataset without any such box is only noted."""
    boxed = boxes.loc[boxes["class_id"] == CLASSES.index(name), "line"]
    if boxed.empty:
        if count := int(rows[column].sum()):
            reason = f"no image of the set has a {name} box: the flag is not checked"
            ledger.note(f"no-{name}-boxes", column, count, reason)
        return
    has_box = rows.index.isin(boxed)
    for line, flag in rows.loc[has_box != rows[column], column].items():
        there = "no" if flag else "a"
        reason = f"the flag is {int(flag)}, but there is {there} {name} box"
        ledger.drop(line, f"{name}-flag", column, int(flag), reason)
