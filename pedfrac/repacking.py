"""Re-packing: which rows of an earlier pack are those of a new one, and copying them.

A row is the same where the file's SHA-256, the size on record and the marker boxes are; that both
packs are of one preparation, and so of one version of its code, is the caller's to see to.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pedfrac.records import CLASSES

BLOCK = 1 << 20  # bytes copied at a time: little enough to stay in a core's cache

_TEXT = CLASSES.index("text")
_BOX = ["xc", "yc", "w", "h"]
_FILE = ["sha256", "width", "height"]


@dataclass(frozen=True)
class EarlierPack:
    """The array of an earlier pack, and the table and boxes of the records it was made from."""

    images: Path
    table: pd.DataFrame
    boxes: pd.DataFrame

    def rows_of(self, table: pd.DataFrame, boxes: pd.DataFrame) -> NDArray[np.int64]:
        """Return for each film of a table the row (n,) that holds its pixels already, or -1."""
        rows = pd.Index(self.table["filestem"]).get_indexer(pd.Index(table["filestem"]))
        there = np.flatnonzero(rows >= 0)
        mine, theirs = table.iloc[there], self.table.iloc[rows[there]]
        ours, before = _markers(boxes), _markers(self.boxes)
        same = np.array([ours.get(stem) == before.get(stem) for stem in mine["filestem"]], bool)
        same &= mine["sha256"].to_numpy() != ""  # of a file that was not read nothing is known
        for name in _FILE:
            same &= mine[name].to_numpy() == theirs[name].to_numpy()
        found = np.full(len(table), -1, np.int64)
        found[there[same]] = rows[there[same]]
        return found


def copy_rows(
    source: tuple[Path, int], target: tuple[Path, int], rows: NDArray[np.int64], size: int
) -> None:
    """Copy rows (n,2), from and to, of ``size`` bytes each, between files of which (path, start).

    What follows each other in both files is copied at once.
    """
    with source[0].open("rb", buffering=0) as old, target[0].open("r+b") as new:
        buffer = memoryview(bytearray(BLOCK))
        for (first, place), count in _runs(rows):
            old.seek(source[1] + first * size)
            new.seek(target[1] + place * size)
            left = count * size
            while left:
                read = old.readinto(buffer[: min(BLOCK, left)])
                if not read:
                    raise EOFError(f"{source[0]}: ends within row {first + count - 1}")
                new.write(buffer[:read])
                left -= read


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield first row and place of each stretch of consecutive rows, with its length."""
    ends = np.flatnonzero((np.diff(rows, axis=0) != 1).any(axis=1)) + 1
    for stretch in np.split(rows, ends):
        if len(stretch):
            yield (int(stretch[0, 0]), int(stretch[0, 1])), len(stretch)


def _markers(boxes: pd.DataFrame) -> dict[str, bytes]:
    """Return the marker boxes of each film that has some, exactly."""
    text = boxes[boxes["class_id"] == _TEXT]
    corners = text[_BOX].to_numpy(np.float64)
    return {
        str(stem): corners[places].tobytes()
        for stem, places in text.groupby("filestem", sort=False).indices.items()
    }
