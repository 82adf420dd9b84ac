"""Records: the data set read into one validated table, with its boxes and a list of every fault.

Not here: which films take part (cohort) and what becomes of their pixels (nothing is decoded).
"""

import csv
import hashlib
import logging
import math
import os
import zlib
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import pandera.pandas as pa

from pedfrac.config import DataConfig
from pedfrac.errors import PedfracError
from pedfrac.storage import content_hash, file_hash, write_json

logger = logging.getLogger(__name__)

COLUMNS = (
    "filestem",
    "patient_id",
    "study_number",
    "timehash",
    "gender",
    "age",
    "laterality",
    "projection",
    "initial_exam",
    "ao_classification",
    "cast",
    "diagnosis_uncertain",
    "osteopenia",
    "fracture_visible",
    "metal",
    "pixel_spacing",
    "device_manufacturer",
)
FLAGS = (
    "initial_exam",
    "cast",
    "diagnosis_uncertain",
    "osteopenia",
    "fracture_visible",
    "metal",
)
CLASSES = (
    "boneanomaly",
    "bonelesion",
    "foreignbody",
    "fracture",
    "metal",
    "periostealreaction",
    "pronatorsign",
    "softtissue",
    "text",
)

CSV_NAME = "dataset.csv"
LABEL_FOLDERS = ("folder_structure/yolov5/labels", "labels")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
AHEAD = 16  # images that wait for each thread
PIECE = 2000  # rows that are Python objects at a time: those take many times a table's memory
LINES = 1 << 14  # of a table read at a time: while it is read, a line takes the room of several
BOX_TOLERANCE = 1e-3  # share of the side by which rounding may push a box over the edge

INTEGERS = ("patient_id", "study_number", "timehash", "projection")
FACT_TYPES: dict[str, Any] = {"width": "int64", "height": "int64", "sha256": "str"}
TABLE_TYPES: dict[str, Any] = (
    dict.fromkeys(COLUMNS, "str")
    | dict.fromkeys(INTEGERS, "int64")
    | dict.fromkeys(FLAGS, "bool")
    | {"age": "float64", "pixel_spacing": "float64"}
    | {"image": "str"}
    | FACT_TYPES
)
BOX_NUMBERS: dict[str, Any] = {"class_id": "int64"} | dict.fromkeys(
    ("xc", "yc", "w", "h"), "float64"
)
BOX_TYPES: dict[str, Any] = {"filestem": "str"} | BOX_NUMBERS
ISSUE_TYPES: dict[str, Any] = {
    "filestem": "str",
    "line": "int64",
    "kind": "str",
    "field": "str",
    "value": "str",
    "reason": "str",
    "dropped": "bool",
}

# What a cell may hold, in the words of the issue that names one which does not.
ALLOWED = {
    "patient_id": "must be a whole number",
    "study_number": "must be a whole number",
    "timehash": "must be a whole number",
    "gender": "must be M, F or O",
    "age": "must be a number of years from 0 to 25",
    "laterality": "must be L or R",
    "projection": "must be 1 (AP), 2 (lateral) or 3 (other)",
    "pixel_spacing": "must be empty or a positive number of millimetres, at most 10",
} | dict.fromkeys(FLAGS, "must be 1 or empty")

_WHOLE = [pa.Check.in_range(0, 10**15), pa.Check(lambda values: values % 1 == 0)]
_FLAG = pa.Column(float, pa.Check.isin((0, 1)))
SCHEMA = pa.DataFrameSchema(
    {
        "patient_id": pa.Column(float, _WHOLE),
        "study_number": pa.Column(float, _WHOLE),
        "timehash": pa.Column(float, _WHOLE),
        "gender": pa.Column(None, pa.Check.isin(("M", "F", "O"))),
        "age": pa.Column(float, pa.Check.in_range(0, 25)),
        "laterality": pa.Column(None, pa.Check.isin(("L", "R"))),
        "projection": pa.Column(float, pa.Check.isin((1, 2, 3))),
        # An empty spacing is read as 1: only what is written can be wrong.
        "pixel_spacing": pa.Column(float, pa.Check.in_range(0, 10, include_min=False)),
    }
    | dict.fromkeys(FLAGS, _FLAG)
)

STEM_PARTS = ("patient_id", "timehash", "study_number", "laterality", "projection", "gender", "age")
STEM_PATTERN = r"\A([0-9]{4,15})_([0-9]{1,15})_([0-9]{2,})_WRI-([LR])([0-9])_([MFO])([0-9]{3})\Z"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Records:
    """The films that can be used, their boxes, and everything that was wrong with the data set.

    ``table``: one row per usable film, sorted by filestem: the 17 columns (flags bool, age in
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
            "issues": _counts(self.issues["kind"]),
            "patients": int(self.table["patient_id"].nunique()),
            "studies": len(self.table[["patient_id", "study_number"]].drop_duplicates()),
            "fractured": int(self.table["fracture_visible"].sum()),
            "normal": int((~self.table["fracture_visible"]).sum()),
            "metal": int(self.table["metal"].sum()),
            "boxes": _counts(self.boxes["class_id"].map(dict(enumerate(CLASSES)))),
        }


def read_records(config: DataConfig, workers: int = 0, progress: Progress | None = None) -> Records:
    """Read and check dataset.csv, and with ``config.images`` also all images and labels.

    ``workers`` threads read images (0: one per core); ``progress(done, total)`` counts them.
    Raises PedfracError where the whole set is unusable (no dataset.csv, a column missing, no
    images or labels folder, more images missing than allowed, no row left); a row that alone
    cannot be used is left out and listed in ``issues``.
    """
    root = Path(config.root)
    raw = _read_csv(root / CSV_NAME)
    ledger = _Ledger(raw["filestem"].fillna(""))
    _note_unknown_columns(raw, ledger)
    rows = _usable_rows(raw, ledger)
    del raw  # the text is not needed any more, and takes more memory than the values
    boxes = _table([], BOX_TYPES)
    if config.images:
        labels = find_label_folder(root)
        rows = _with_paths(rows, config, ledger)
        rows = _inspected(rows, root, ledger, workers, progress)
        rows, boxes = _with_labels(rows, labels, ledger)
    else:
        rows = rows.assign(image="", width=0, height=0, sha256="")
    issues = ledger.table()
    if rows.empty:
        raise PedfracError(
            f"{root / CSV_NAME}: no usable row of {len(ledger.stems)}; {_examples(issues)}"
        )
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


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV whose numbers read back exactly."""
    table.to_csv(path, index=False, lineterminator="\n")


def read_table(
    path: Path, types: Mapping[str, Any], columns: list[str] | None = None
) -> pd.DataFrame:
    """Read a CSV that ``write_table`` wrote; "" stays text in text columns and is NaN in floats.

    ``columns``: those to read, all where it is None.
    """
    try:
        with pd.read_csv(
            path,
            dtype=dict(types),
            keep_default_na=False,
            na_values={name: [""] for name, kind in types.items() if kind == "float64"},
            float_precision="round_trip",
            usecols=columns,
            chunksize=LINES,
        ) as pieces:
            return pd.concat(pieces, ignore_index=True)
    except (OSError, ValueError) as error:
        raise PedfracError(f"{path}: cannot be read as a table ({error})") from None


def fingerprint(config: DataConfig) -> dict[str, str]:
    """Return what tells one state of the data set from another, without opening its images.

    The hash of dataset.csv and, with images, of the names, sizes and times of images and labels.
    """
    root = Path(config.root)
    if not (root / CSV_NAME).is_file():
        raise PedfracError(f"{root / CSV_NAME}: is missing; data.root must be the folder of it")
    sources = {CSV_NAME: file_hash(root / CSV_NAME)}
    if config.images:
        sources["images"] = _listing_hash(find_image_folders(root))
        sources["labels"] = _listing_hash([find_label_folder(root)])
    return sources


def check_layout(config: DataConfig) -> None:
    """Look whether a folder can be a data set, without reading it: columns, images, labels.

    Raises the PedfracError that ``read_records`` would end in, before hours of other work.
    """
    root = Path(config.root)
    with _open_csv(root / CSV_NAME) as reader:
        _check_header(root / CSV_NAME, next(reader, []))
    if config.images:
        find_image_folders(root)
        find_label_folder(root)


def find_image_folders(root: Path) -> list[Path]:
    """Return the folders that hold images: every ``images*/`` under the root, by name."""
    folders = sorted(path for path in root.glob("images*") if path.is_dir())
    if not folders:
        raise PedfracError(
            f"{root}: no images*/ folder here (such as images_part1 or images); "
            "set data.images to false to read the metadata only"
        )
    return folders


def find_label_folder(root: Path) -> Path:
    """Return the folder of the YOLO labels. Without one, side markers would silently stay."""
    for name in LABEL_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise PedfracError(
        f"{root}: no labels folder here ({' or '.join(LABEL_FOLDERS)}), "
        "so no side marker could be removed and no fracture flag checked"
    )


# ---- the ledger of faults ---------------------------------------------------------------------


class _Issue(NamedTuple):
    filestem: str
    line: int
    kind: str
    field: str
    value: str
    reason: str
    dropped: bool


@dataclass
class _Ledger:
    """Collects issues, and knows by them which lines of dataset.csv are out."""

    stems: pd.Series  # line -> filestem as written
    issues: list[_Issue] = field(default_factory=list)

    def drop(self, line: Any, kind: str, name: str, value: object, reason: str) -> None:
        stem = self.stems[line]
        self.issues.append(_Issue(stem, int(line), kind, name, str(value), reason, True))

    def note(
        self, kind: str, name: str, value: object, reason: str, stem: str = "", line: Any = 0
    ) -> None:
        self.issues.append(_Issue(stem, int(line), kind, name, str(value), reason, False))

    def keep(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of which no line is out."""
        return rows[~rows.index.isin({issue.line for issue in self.issues if issue.dropped})]

    def table(self) -> pd.DataFrame:
        return _table(sorted(self.issues), ISSUE_TYPES)


def _table(rows: Iterable[Sequence[Any]], types: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table of rows, which are taken piece by piece."""
    left = iter(rows)
    pieces: list[pd.DataFrame] = []
    while (some := list(islice(left, PIECE))) or not pieces:
        pieces.append(pd.DataFrame(some, columns=list(types)).astype(dict(types)))
    return pd.concat(pieces, ignore_index=True)


def _counts(values: pd.Series) -> dict[str, int]:
    return {str(name): int(count) for name, count in values.value_counts().sort_index().items()}


def _examples(issues: pd.DataFrame) -> str:
    kinds = ", ".join(f"{kind} {count}" for kind, count in _counts(issues["kind"]).items())
    first = issues[issues["dropped"]].head(3)
    named = "; ".join(
        f"line {issue.line} {issue.field} {issue.value!r} {issue.reason}"
        for issue in first.itertuples()
    )
    return f"{kinds or 'the table holds none'}{' — first: ' if named else ''}{named}"


# ---- dataset.csv ------------------------------------------------------------------------------


def _read_csv(path: Path) -> pd.DataFrame:
    """Return dataset.csv as text, indexed by line number; cells that a short row lacks are NaN."""
    with _open_csv(path) as reader:
        header: list[str] = next(reader, [])
        _check_header(path, header)
        width = len(header)
        rows = (
            [*(row + [None] * width)[:width], len(row), line] for line, row in _numbered(reader)
        )
        types = dict.fromkeys(header, "str") | {"cells": "int64", "line": "int64"}
        raw = _table(rows, types).set_index("line")
    if raw.empty:
        raise PedfracError(f"{path}: holds no rows, only a header")
    return raw


@contextmanager
def _open_csv(path: Path) -> Iterator[Any]:
    """Yield a reader of rows; what it stumbles over becomes a PedfracError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield csv.reader(file)
    except FileNotFoundError:
        raise PedfracError(f"{path}: is missing; data.root must be the folder of it") from None
    except OSError as error:
        raise PedfracError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise PedfracError(
            f"{path}: is not UTF-8 (byte {error.object[error.start]:#04x}); save it as UTF-8"
        ) from None
    except csv.Error as error:
        raise PedfracError(f"{path}: is not CSV ({error})") from None


def _numbered(reader: Any) -> Iterator[tuple[int, list[Any]]]:
    """Yield each row with the number of the line it starts on; a quoted cell may span lines."""
    start = reader.line_num + 1
    for row in reader:
        if row:
            yield start, row
        start = reader.line_num + 1


def _check_header(path: Path, header: list[str]) -> None:
    if not header:
        raise PedfracError(f"{path}: is empty; it must hold the columns {', '.join(COLUMNS)}")
    missing = [name for name in COLUMNS if name not in header]
    unknown = [name for name in header if name not in COLUMNS]
    twice = sorted({name for name in header if header.count(name) > 1})
    if missing or twice:
        raise PedfracError(
            f"{path}: "
            + (f"column {', '.join(map(repr, missing))} is missing; " if missing else "")
            + (f"column {', '.join(map(repr, unknown))} is unknown; " if unknown else "")
            + (f"column {', '.join(map(repr, twice))} is there twice; " if twice else "")
            + f"it must hold the columns {', '.join(COLUMNS)}"
        )


def _note_unknown_columns(raw: pd.DataFrame, ledger: _Ledger) -> None:
    for name in raw.columns.drop("cells"):
        if name not in COLUMNS:
            ledger.note("column-unknown", name, "", "is not a column of the data set: not read")


def _usable_rows(raw: pd.DataFrame, ledger: _Ledger) -> pd.DataFrame:
    """Return the rows whose cells are all allowed and agree with each other, in their types."""
    _drop_ragged(raw, ledger)
    raw = ledger.keep(raw)[list(COLUMNS)]
    _drop_duplicates(raw, ledger)
    raw = ledger.keep(raw)
    parsed = _parse(raw)
    _drop_disallowed(parsed, raw, ledger)
    raw, parsed = ledger.keep(raw), ledger.keep(parsed)
    _drop_mismatched(parsed, raw, ledger)
    parsed = ledger.keep(parsed)
    parsed.loc[raw.loc[parsed.index, "pixel_spacing"] == "", "pixel_spacing"] = np.nan
    return parsed.astype({name: TABLE_TYPES[name] for name in COLUMNS})


def _drop_ragged(raw: pd.DataFrame, ledger: _Ledger) -> None:
    width = len(raw.columns) - 1
    for line, cells in raw.loc[raw["cells"] != width, "cells"].items():
        reason = f"the row has {cells} cells, the header {width}"
        ledger.drop(line, "row-length", "", cells, reason)


def _drop_duplicates(raw: pd.DataFrame, ledger: _Ledger) -> None:
    raw = raw[_repeated(raw["filestem"]) & (raw["filestem"] != "")]
    distinct = raw.drop_duplicates()["filestem"]
    contradicting = raw["filestem"].isin(distinct[distinct.duplicated()])
    once = raw["filestem"].drop_duplicates()
    first = dict(zip(once, once.index, strict=True))
    for line, stem in raw.loc[contradicting, "filestem"].items():
        reason = f"rows of this film differ (first on line {first[stem]})"
        ledger.drop(line, "duplicate-contradictory", "filestem", stem, reason)
    for line, stem in raw.loc[raw.duplicated() & ~contradicting, "filestem"].items():
        ledger.drop(line, "duplicate", "filestem", stem, f"repeats line {first[stem]}")


def _repeated(values: pd.Series) -> pd.Series:
    """Return which values are there more than once."""
    # not duplicated(), which makes a Python object of each text
    counts = values.value_counts(sort=False)
    return values.isin(counts.index[counts > 1])


def _parse(raw: pd.DataFrame) -> pd.DataFrame:
    """Return numbers for text (NaN where it is none); an empty flag is 0, an empty spacing 1."""
    numbers = {name: pd.to_numeric(raw[name], errors="coerce") for name in (*INTEGERS, "age")}
    for name, empty in {**dict.fromkeys(FLAGS, "0"), "pixel_spacing": "1"}.items():
        numbers[name] = pd.to_numeric(raw[name].where(raw[name] != "", empty), errors="coerce")
    return raw.assign(**{name: values.astype("float64") for name, values in numbers.items()})


def _drop_disallowed(parsed: pd.DataFrame, raw: pd.DataFrame, ledger: _Ledger) -> None:
    try:
        SCHEMA.validate(parsed, lazy=True)
    except pa.errors.SchemaErrors as error:
        cells = error.failure_cases[["index", "column"]].drop_duplicates()
        for line, name in cells.itertuples(index=False):
            ledger.drop(line, "value", name, raw.at[line, name], ALLOWED[name])


def _drop_mismatched(parsed: pd.DataFrame, raw: pd.DataFrame, ledger: _Ledger) -> None:
    """Drop rows whose filestem is malformed or says something else than a column."""
    parts = parsed["filestem"].str.extract(STEM_PATTERN)
    parts.columns = pd.Index(STEM_PARTS)
    for line, stem in parsed.loc[parts["age"].isna(), "filestem"].items():
        reason = "must look like 0001_1297860395_01_WRI-L1_M014"
        ledger.drop(line, "filestem", "filestem", stem, reason)
    parts = parts.dropna()
    for name in STEM_PARTS:
        column = parsed.loc[parts.index, name]
        column = np.floor(column) if name == "age" else column
        said = parts[name] if name in ("gender", "laterality") else parts[name].astype("float64")
        for line in parts.index[said != column]:
            value = str(raw.at[line, name])
            reason = f"the filestem says {parts[name][line]}, the column {name} {value}"
            ledger.drop(line, "filestem-mismatch", name, value, reason)


# ---- images -----------------------------------------------------------------------------------


class ImageFacts(NamedTuple):
    """What an image file tells without being decoded."""

    width: int
    height: int
    sha256: str


class ImageFault(Exception):
    """An image file that cannot be used: kind of issue, reason."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


def inspect_image(path: Path) -> ImageFacts:
    """Read an image file once: is it whole, how large is the picture in pixels, its SHA-256.

    Raises ImageFault where it is no PNG or JPEG, cut short, or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageFault("image-unreadable", f"cannot be read ({error.strerror})") from None
    if content.startswith(PNG_SIGNATURE):
        width, height = _png_size(content)
    elif content.startswith(JPEG_SIGNATURE):
        width, height = _jpeg_size(content)
    else:
        what = "is neither PNG nor JPEG" if content else "is empty"
        raise ImageFault("image-unreadable", what)
    return ImageFacts(width, height, hashlib.sha256(content).hexdigest())


def _png_size(content: bytes) -> tuple[int, int]:
    """Walk the chunks up to IEND and check each CRC: whole and undamaged without decoding."""
    view = memoryview(content)
    position = len(PNG_SIGNATURE)
    size, has_pixels = None, False
    while True:
        length = int.from_bytes(view[position : position + 4], "big")
        end = position + 12 + length
        if end > len(view):
            raise ImageFault("image-truncated", f"ends after {len(view)} bytes, within a chunk")
        kind = bytes(view[position + 4 : position + 8])
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ImageFault("image-damaged", f"checksum of chunk {kind!r} at byte {position}")
        if size is None:
            size = _header_size(kind, view[position + 8 : end - 4])
        has_pixels |= kind == b"IDAT"
        if kind == b"IEND":
            break
        position = end
    if not has_pixels:
        raise ImageFault("image-damaged", "holds no pixels")
    return size


def _header_size(kind: bytes, data: memoryview) -> tuple[int, int]:
    width, height = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
    if kind != b"IHDR" or len(data) != 13 or not width or not height:
        raise ImageFault("image-damaged", "has no valid PNG header")
    return width, height


def _jpeg_size(content: bytes) -> tuple[int, int]:
    # JPEG has no checksums: the end marker tells a whole file, decoding a readable one.
    if not content.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ImageFault("image-truncated", f"ends after {len(content)} bytes without end marker")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ImageFault("image-damaged", "does not decode as JPEG")
    return pixels.shape[1], pixels.shape[0]


def _with_paths(rows: pd.DataFrame, config: DataConfig, ledger: _Ledger) -> pd.DataFrame:
    """Return the rows whose image is there, with its path."""
    files = _image_files(Path(config.root))
    for stem in sorted(set(files).difference(ledger.stems)):
        reason = f"no row of {CSV_NAME} names this file"
        ledger.note("image-without-row", "image", " ".join(files[stem]), reason, stem)
    _drop_missing(rows, files, config, ledger)
    for line, stem in rows["filestem"].items():
        if len(found := files.get(stem, [])) > 1:
            reason = "the film must have one image file"
            ledger.drop(line, "image-ambiguous", "image", " ".join(found), reason)
    rows = ledger.keep(rows)
    return rows.assign(image=[files[stem][0] for stem in rows["filestem"]])


def _image_files(root: Path) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for folder in find_image_folders(root):
        for name in _names(folder):
            path = Path(name)
            if path.suffix.lower() in IMAGE_SUFFIXES:
                files.setdefault(path.stem, []).append(f"{folder.name}/{name}")
    return files


def _drop_missing(
    rows: pd.DataFrame, files: Container[str], config: DataConfig, ledger: _Ledger
) -> None:
    # not isin(), which makes an object of Arrow's of each name
    missing = rows.loc[[stem not in files for stem in rows["filestem"]], "filestem"]
    if config.missing == "error" and len(missing) > config.missing_allowed:
        raise PedfracError(
            f"{config.root}: {len(missing)} of {len(rows)} images are missing "
            f"({', '.join(missing.head(3))}{' …' if len(missing) > 3 else ''}), "
            f"{config.missing_allowed} allowed; raise data.missing_allowed, "
            "or set data.missing to drop to leave them out by name"
        )
    for line, stem in missing.items():
        ledger.drop(line, "image-missing", "image", stem, "no images*/ folder holds this file")


def _inspected(
    rows: pd.DataFrame, root: Path, ledger: _Ledger, workers: int, progress: Progress | None
) -> pd.DataFrame:
    """Return the rows whose image is whole, with its size and hash."""
    facts = _table(_facts_of(rows["image"], root, ledger, workers, progress), FACT_TYPES)
    rows = ledger.keep(rows)
    rows = rows.join(facts.set_index(rows.index))
    _note_same_images(rows, ledger)
    return rows


def _facts_of(
    images: pd.Series, root: Path, ledger: _Ledger, workers: int, progress: Progress | None
) -> Iterator[ImageFacts]:
    """Yield what the images that can be used tell; the others go into the ledger."""
    results = _inspect_all(images, root, workers, progress)
    for (line, image), result in zip(images.items(), results, strict=True):
        if isinstance(result, ImageFault):
            ledger.drop(line, result.kind, "image", image, result.reason)
        else:
            yield result


def _inspect_all(
    images: pd.Series, root: Path, workers: int, progress: Progress | None
) -> Iterator[ImageFacts | ImageFault]:
    step = max(1, len(images) // 100)
    for done, result in enumerate(_inspect_ahead(images, root, workers or os.cpu_count() or 1), 1):
        if progress is not None and (done % step == 0 or done == len(images)):
            progress(done, len(images))
        yield result


def _inspect_ahead(
    images: Iterable[str], root: Path, workers: int
) -> Iterator[ImageFacts | ImageFault]:
    # Threads suffice: reading, CRC and SHA-256 all release the interpreter lock.
    waiting: deque[Future[ImageFacts | ImageFault]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for image in images:
            waiting.append(pool.submit(_facts_or_fault, root / image))
            if len(waiting) > AHEAD * workers:  # one for each film would be most of all memory
                yield waiting.popleft().result()
        yield from (one.result() for one in waiting)


def _facts_or_fault(path: Path) -> ImageFacts | ImageFault:
    try:
        return inspect_image(path)
    except ImageFault as fault:
        return fault


def _note_same_images(rows: pd.DataFrame, ledger: _Ledger) -> None:
    """List films whose files are equal: under two patients they would leak across a split."""
    twins = rows[_repeated(rows["sha256"])]
    first = twins.drop_duplicates("sha256").set_index("sha256")
    row: Any
    for row in twins[twins["sha256"].duplicated()].itertuples():
        other = first.loc[row.sha256]
        whose = "the same" if other["patient_id"] == row.patient_id else "another"
        reason = f"the same bytes as {other['filestem']}, of {whose} patient"
        ledger.note("image-repeated", "image", row.image, reason, row.filestem, row.Index)


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_file())


def _listing_hash(folders: list[Path]) -> str:
    return content_hash(
        [
            [folder.name, name, (stat := (folder / name).stat()).st_size, stat.st_mtime_ns]
            for folder in folders
            for name in _names(folder)
        ]
    )


# ---- labels -----------------------------------------------------------------------------------


def _with_labels(
    rows: pd.DataFrame, folder: Path, ledger: _Ledger
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows whose label file is sound and agrees with their flags, and their boxes."""
    names = {name.removesuffix(".txt") for name in _names(folder)}
    for stem in sorted(names.difference(ledger.stems)):
        reason = f"no row of {CSV_NAME} names this file"
        ledger.note("label-without-row", "labels", stem, reason, stem)
    table = _table(_boxes_of(rows, names, folder, ledger), {"line": "int64"} | BOX_NUMBERS)
    rows = ledger.keep(rows)
    for column, name in (("fracture_visible", "fracture"), ("metal", "metal")):
        _check_flag(rows, table, column, name, ledger)
    rows = ledger.keep(rows)
    table = table[table["line"].isin(rows.index)].reset_index(drop=True)
    stems = rows["filestem"].loc[table["line"]].array
    return rows, table.assign(filestem=stems)[list(BOX_TYPES)]


def _boxes_of(
    rows: pd.DataFrame, names: Container[str], folder: Path, ledger: _Ledger
) -> Iterator[tuple[Any, ...]]:
    """Yield the boxes of films in order of their names, each with the film's row."""
    row: Any
    for row in rows[["filestem", "width", "height"]].sort_values("filestem").itertuples():
        if row.filestem in names:
            yield from _read_labels(folder / f"{row.filestem}.txt", row, ledger)
        else:
            reason = "no label file: taken as a film without boxes"
            ledger.note("label-missing", "labels", "", reason, row.filestem, row.Index)


def _read_labels(path: Path, row: Any, ledger: _Ledger) -> list[tuple[Any, ...]]:
    """Return a label file's boxes with their row; a bad line drops that, by an issue of its own."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        ledger.drop(row.Index, "label-unreadable", "labels", path.name, f"is not text ({error})")
        return []
    tolerance = (
        max(BOX_TOLERANCE, 1 / row.width) + 1e-9,
        max(BOX_TOLERANCE, 1 / row.height) + 1e-9,
    )
    boxes = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            boxes.append((row.Index, *_parse_box(line, tolerance)))
        except _LabelFault as fault:
            reason = f"line {number} of the label file: {fault.reason}"
            ledger.drop(row.Index, fault.kind, "labels", line, reason)
    return boxes


class _LabelFault(Exception):
    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


def _parse_box(line: str, tolerance: tuple[float, float]) -> tuple[int, float, float, float, float]:
    """Return class and box of a YOLO line. Raises _LabelFault."""
    try:
        name, *numbers = line.split()
        class_id = int(name)
        xc, yc, w, h = map(float, numbers)
    except ValueError:
        raise _LabelFault("label-malformed", "must be: class xc yc w h") from None
    if not 0 <= class_id < len(CLASSES):
        raise _LabelFault("label-class", f"class {class_id} must be 0 to {len(CLASSES) - 1}")
    if not all(map(math.isfinite, (xc, yc, w, h))):
        raise _LabelFault("label-malformed", "must hold finite numbers")
    if w <= 0 or h <= 0:
        raise _LabelFault("label-box", "the box must have a positive width and height")
    over = (w / 2 - xc, xc + w / 2 - 1), (h / 2 - yc, yc + h / 2 - 1)
    if any(max(sides) > most for sides, most in zip(over, tolerance, strict=True)):
        raise _LabelFault("label-box", "the box must lie within the image")
    return class_id, xc, yc, w, h


def _check_flag(
    rows: pd.DataFrame, boxes: pd.DataFrame, column: str, name: str, ledger: _Ledger
) -> None:
    """Drop films where box and flag contradict; a set that has no such box at all is only noted."""
    boxed = boxes.loc[boxes["class_id"] == CLASSES.index(name), "line"]
    if boxed.empty:
        if count := int(rows[column].sum()):
            reason = f"no film of the set has a {name} box: the flag is not checked"
            ledger.note(f"no-{name}-boxes", column, count, reason)
        return
    has_box = rows.index.isin(boxed)
    for line, flag in rows.loc[has_box != rows[column], column].items():
        there = "no" if flag else "a"
        reason = f"the flag is {int(flag)}, but there is {there} {name} box"
        ledger.drop(line, f"{name}-flag", column, int(flag), reason)
