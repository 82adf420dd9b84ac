"""Tables on disk, written and read in pieces."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from pedfrac.errors import PedfracError

PIECE = 2000  # rows that are Python objects at a time: those take many times a table's memory
LINES = 1 << 14  # of a table read at a time: while it is read, a line takes the room of several


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


def as_table(rows: Iterable[Sequence[Any]], types: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table of rows, which are taken piece by piece."""
    left = iter(rows)
    pieces: list[pd.DataFrame] = []
    while (some := list(islice(left, PIECE))) or not pieces:
        pieces.append(pd.DataFrame(some, columns=list(types)).astype(dict(types)))
    return pd.concat(pieces, ignore_index=True)
