"""Re-packing: find the images that an earlier pack already holds, and link or copy their pixels.

The earlier pack must have been verified by the caller: pixels are not checked here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pedfrac.packs.arrays import ImageArrays, Places, link_parts, mapped, start_of

BLOCK = 1 << 20  # bytes copied at a time: little enough to stay in a core's cache
MOST_PARTS = 16  # a batch is read from all parts, and each is a file to keep
MOST_UNUSED = 0.1  # of the rows of shared files may be of images that are gone


@dataclass(frozen=True)
class EarlierPack:
    """The arrays of an earlier pack, and of each image its source and its pixels' checksum."""

    arrays: ImageArrays
    images: NDArray[np.void]

    @classmethod
    def open(cls, folder: Path, images: str) -> "EarlierPack":
        """Return the earlier pack in a folder, its images listed in a file of it."""
        return cls(ImageArrays.of(folder), np.load(folder / images, allow_pickle=False))

    def rows_of(self, sources: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Return for each source the row (n,) of the earlier pack that holds its pixels, or -1."""
        own = self.images["source"]
        order = np.argsort(own, kind="stable")
        at = np.searchsorted(own, sources, sorter=order)
        rows = order[np.minimum(at, len(own) - 1)]
        return np.where((own[rows] == sources) & (sources != b""), rows, -1)

    def share(self, folder: Path, known: NDArray[np.int64]) -> Places | None:
        """Link the parts that hold ``known`` rows (-1: none) into a folder.

        Returns the places of all images there, the unknown ones in a part after those linked; None
        where copying is better, since much of the parts would be of no use, or the only way.
        """
        new = known < 0
        if new.all():
            return None
        places = self.arrays.places[known]
        used, numbers = np.unique(places[~new, 0], return_inverse=True)
        parts = [self.arrays.parts[number] for number in used]
        held = sum(len(mapped(part)) for part in parts)
        unused = held - len(np.unique(known[~new]))
        if len(parts) + new.any() > MOST_PARTS or unused > MOST_UNUSED * held:
            return None
        places[~new, 0] = numbers
        places[new, 0] = len(parts)
        places[new, 1] = np.arange(new.sum())
        return places if link_parts(folder, parts, places) else None

    def copy(self, target: Path, rows: NDArray[np.int64], places: NDArray[np.int32]) -> None:
        """Copy some rows to places in an array file of images of the same size."""
        own = self.arrays.places[rows]
        for number in np.unique(own[:, 0]):
            chosen = own[:, 0] == number
            part = self.arrays.parts[number]
            pairs = np.stack([own[chosen, 1], places[chosen]], axis=1).astype(np.int64)
            size = mapped(part)[0].nbytes
            copy_rows((part, start_of(part)), (target, start_of(target)), pairs, size)


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
