"""Records: the data set read into one validated table, with its boxes and a list of every fault.

Not here: which images take part (cohort) and what becomes of their pixels (nothing is decoded).
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pedfrac.config.data import DataConfig
from pedfrac.data.dataset_csv import keep_usable_rows, note_unknown_columns, read_dataset_csv
from pedfrac.data.image_files import Progress, add_paths, inspect_files
from pedfrac.data.issues import IssueLog, count_values, examples_of
from pedfrac.data.labels import add_labels
from pedfrac.data.layout import CSV_NAME, find_label_folder
from pedfrac.data.policy import refuse_mostly_dropped, refuse_unlabelled
from pedfrac.data.schema import BOX_TYPES, CLASSES, ISSUE_TYPES, TABLE_TYPES
from pedfrac.data.tables import as_table, read_table, write_table
from pedfrac.errors import PedfracError
from pedfrac.storage.files import write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Records:
    """The images that can be used, their boxes, and everything that was wrong with the data set.

    ``table``: one row per usable image, sorted by filestem: the 17 columns (flags bool, age in
    years, pixel_spacing in mm or NaN), ``image`` (path relative to the root), ``width`` and
    ``height`` in pixels and the ``sha256`` of the file; "" and 0 where images were not looked at.
    ``boxes``: filestem, class_id (index into CLASSES), centre and size as shares of the image.
    ``issues``: filestem, line of dataset.csv (0: none), kind, field, value, reason, dropped.
    """

    table: pd.DataFrame
    boxes: pd.DataFrame
    issues: pd.DataFrame

    def summary(self) -> dict[str, Any]:
        """Return the counts as JSON: rows, usable, dropped, issues, patients, studies, labels."""
        dropped = int(self.issues.loc[self.issues["dropped"], "line"].nunique())
        return {
            "rows": len(self.table) + dropped,
            "usable": len(self.table),
            "dropped": dropped,
            "issues": count_values(self.issues["kind"]),
            "patients": int(self.table["patient_id"].nunique()),
            "studies": len(self.table[["patient_id", "study_number"]].drop_duplicates()),
            "fractured": int(self.table["fracture_visible"].sum()),
            "normal": int((~self.table["fracture_visible"]).sum()),
            "metal": int(self.table["metal"].sum()),
            "boxes": count_values(self.boxes["class_id"].map(dict(enumerate(CLASSES)))),
        }


def read_records(config: DataConfig, workers: int = 0, progress: Progress | None = None) -> Records:
    """Read and check dataset.csv, and with ``config.images`` also all images and labels.

    ``workers`` threads read images (0: one per core); ``progress(done, total)`` counts them.
    Raises PedfracError where the whole set is unusable (no dataset.csv, a column missing, no
    images or labels folder, more images missing, unlabelled or rows unusable than allowed, no row
    left); a row that alone cannot be used is left out and listed in ``issues``.
    """
    root = Path(config.root)
    raw = read_dataset_csv(root / CSV_NAME)
    ledger = IssueLog(raw["filestem"].fillna(""))
    note_unknown_columns(raw, ledger)
    rows = keep_usable_rows(raw, ledger)
    del raw  # the text is not needed any more, and takes more memory than the values
    if len(rows):
        refuse_mostly_dropped(ledger.table(), len(ledger.stems), config)
    boxes = as_table([], BOX_TYPES)
    if config.images:
        labels = find_label_folder(root)
        rows = add_paths(rows, config, ledger)
        refuse_unlabelled(rows, labels, config)
        rows = inspect_files(rows, root, ledger, workers, progress)
        rows, boxes = add_labels(rows, labels, ledger)
    else:
        rows = rows.assign(image="", width=0, height=0, sha256="")
    issues = ledger.table()
    if rows.empty:
        raise PedfracError(
            f"{root / CSV_NAME}: no usable row of {len(ledger.stems)}; {examples_of(issues)}"
        )
    refuse_mostly_dropped(issues, len(ledger.stems), config)
    table = rows.sort_values("filestem", ignore_index=True)[list(TABLE_TYPES)].astype(TABLE_TYPES)
    records = Records(table, boxes, issues)
    logger.info("%s: %d of %d rows usable", root / CSV_NAME, len(table), len(ledger.stems))
    return records


def save_records(records: Records, folder: Path) -> None:
    """Write records.csv, boxes.csv, issues.csv and summary.json; equal records, equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(records.table, folder / "records.csv")
    write_table(records.boxes, folder / "boxes.csv")
    write_table(records.issues, folder / "issues.csv")
    write_json(folder / "summary.json", records.summary())


def load_records(folder: Path) -> Records:
    """Return what ``save_records`` wrote, with the same values and types."""
    return Records(
        table=read_table(folder / "records.csv", TABLE_TYPES),
        boxes=read_table(folder / "boxes.csv", BOX_TYPES),
        issues=read_table(folder / "issues.csv", ISSUE_TYPES),
    )
