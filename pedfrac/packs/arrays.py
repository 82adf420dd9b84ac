"""The array files of a pack: one array in row order, or several parts with a list of places.

Parts come from re-packing: an earlier pack's files are linked, and only new rows are written.
The rest of a pack is in build.py, the choice of rows to reuse in reuse.py.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pedfrac.errors import PedfracError
from pedfrac.packs.mapped import Images, JoinedImages

IMAGES, PLACES = "images.npy", "places.npy"
Places = NDArray[np.int32]
"""Where each image lies (n,2): the number of the part, and the row in it."""


@dataclass(frozen=True)
class ImageArrays:
    """The array files of a pack, and where each image lies in them."""

    parts: list[Path]
    places: Places

    @classmethod
    def of(cls, folder: Path) -> "ImageArrays":
        """Return the arrays in a folder. Raises OSError or ValueError where they are not whole."""
        if (folder / PLACES).exists():
            places = np.load(folder / PLACES, allow_pickle=False)
            if places.dtype != np.int32 or places.ndim != 2:
                raise ValueError(f"{PLACES} must hold pairs of part and row")
            parts = [part_path(folder, number) for number in range(places[:, 0].max() + 1)]
            return cls(parts, places)
        rows = np.arange(len(mapped(folder / IMAGES)), dtype=np.int32)
        return cls([folder / IMAGES], np.stack([np.zeros_like(rows), rows], axis=1))

    @property
    def plain(self) -> bool:
        """Whether a single array holds the images in row order."""
        return len(self.parts) == 1 and self.parts[0].name == IMAGES

    def open(self) -> Images:
        """Return the images, mapped read-only."""
        parts = [mapped(path) for path in self.parts]
        return parts[0] if self.plain else JoinedImages(parts, self.places)


def part_path(folder: Path, number: int) -> Path:
    """Return the file of a part."""
    return folder / f"images-{number}.npy"


def mapped(path: Path) -> NDArray[np.uint8]:
    """Return an array mapped read-only. Raises OSError or ValueError where it is not whole."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def start_of(path: Path) -> int:
    """Return the byte offset of the first row of an array file."""
    return int(mapped(path).offset)  # type: ignore[attr-defined]


def allocate(path: Path, n: int, size: int) -> None:
    """Make an array file (n,size,size) of zeros, with its room on the disk taken."""
    try:
        np.lib.format.open_memmap(path, "w+", dtype=np.uint8, shape=(n, size, size)).flush()
        # Writing to a map on a full disk kills the process with no error that could be told.
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise PedfracError(
            f"{path}: cannot be made, {n * size * size / 1e9:.1f} GB are needed ({error.strerror})"
        ) from None


def link_parts(folder: Path, parts: Sequence[Path], places: Places) -> bool:
    """Hard-link array files of another folder; return False where the file system cannot.

    ``places`` covers all images; the caller writes any part that is not among the given ones.
    """
    rows = np.arange(len(places))
    plain = len(parts) == 1 and len(mapped(parts[0])) == len(rows)
    plain = plain and not places[:, 0].any() and bool((places[:, 1] == rows).all())
    names = [folder / IMAGES] if plain else [part_path(folder, k) for k in range(len(parts))]
    try:
        for part, name in zip(parts, names, strict=True):
            os.link(part, name)
    except OSError:
        for name in names:
            name.unlink(missing_ok=True)
        return False
    if not plain:
        save_array(folder / PLACES, places)
    return True


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array file and bring it to the disk."""
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
