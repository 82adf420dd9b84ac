"""dataset.csv: read, checked row by row, and converted to types."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from pedfrac.data.issues import IssueLog, repeated_values
from pedfrac.data.schema import (
    ALLOWED,
    COLUMNS,
    FLAGS,
    INTEGERS,
    SCHEMA,
    STEM_PARTS,
    STEM_PATTERN,
    TABLE_TYPES,
)
from pedfrac.data.tables import as_table
from pedfrac.errors import PedfracError


# ---- dataset.csv ------------------------------------------------------------------------------
def read_dataset_csv(path: Path) -> pd.DataFrame:
    """Return dataset.csv as text, indexed by line number; cells that a short row lacks are NaN."""
    with open_dataset_csv(path) as reader:
        header: list[str] = next(reader, [])
        check_header(path, header)
        width = len(header)
        rows = (
            [*(row + [None] * width)[:width], len(row), line] for line, row in _numbered(reader)
        )
        types = dict.fromkeys(header, "str") | {"cells": "int64", "line": "int64"}
        raw = as_table(rows, types).set_index("line")
    if raw.empty:
        raise PedfracError(f"{path}: holds no rows, only a header")
    return raw


@contextmanager
def open_dataset_csv(path: Path) -> Iterator[Any]:
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


def check_header(path: Path, header: list[str]) -> None:
    """Raise PedfracError where columns are missing or repeated."""
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


def note_unknown_columns(raw: pd.DataFrame, ledger: IssueLog) -> None:
    """List the columns that nothing reads."""
    for name in raw.columns.drop("cells"):
        if name not in COLUMNS:
            ledger.note("column-unknown", name, "", "is not a column of the data set: not read")


def keep_usable_rows(raw: pd.DataFrame, ledger: IssueLog) -> pd.DataFrame:
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


def _drop_ragged(raw: pd.DataFrame, ledger: IssueLog) -> None:
    width = len(raw.columns) - 1
    for line, cells in raw.loc[raw["cells"] != width, "cells"].items():
        reason = f"the row has {cells} cells, the header {width}"
        ledger.drop(line, "row-length", "", cells, reason)


def _drop_duplicates(raw: pd.DataFrame, ledger: IssueLog) -> None:
    raw = raw[repeated_values(raw["filestem"]) & (raw["filestem"] != "")]
    distinct = raw.drop_duplicates()["filestem"]
    contradicting = raw["filestem"].isin(distinct[distinct.duplicated()])
    once = raw["filestem"].drop_duplicates()
    first = dict(zip(once, once.index, strict=True))
    for line, stem in raw.loc[contradicting, "filestem"].items():
        reason = f"rows of this image differ (first on line {first[stem]})"
        ledger.drop(line, "duplicate-contradictory", "filestem", stem, reason)
    for line, stem in raw.loc[raw.duplicated() & ~contradicting, "filestem"].items():
        ledger.drop(line, "duplicate", "filestem", stem, f"repeats line {first[stem]}")


def _parse(raw: pd.DataFrame) -> pd.DataFrame:
    """Return numbers for text (NaN if not a number); an empty flag is 0, an empty spacing 1."""
    numbers = {name: pd.to_numeric(raw[name], errors="coerce") for name in (*INTEGERS, "age")}
    for name, empty in {**dict.fromkeys(FLAGS, "0"), "pixel_spacing": "1"}.items():
        numbers[name] = pd.to_numeric(raw[name].where(raw[name] != "", empty), errors="coerce")
    return raw.assign(**{name: values.astype("float64") for name, values in numbers.items()})


def _drop_disallowed(parsed: pd.DataFrame, raw: pd.DataFrame, ledger: IssueLog) -> None:
    try:
        SCHEMA.validate(parsed, lazy=True)
    except pa.errors.SchemaErrors as error:
        cells = error.failure_cases[["index", "column"]].drop_duplicates()
        for line, name in cells.itertuples(index=False):
            ledger.drop(line, "value", name, raw.at[line, name], ALLOWED[name])


def _drop_mismatched(parsed: pd.DataFrame, raw: pd.DataFrame, ledger: IssueLog) -> None:
    """Drop rows whose filestem is malformed or contradicts a column."""
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
