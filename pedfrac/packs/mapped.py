"""Images (n,size,size) mapped from files and read when asked for: one array, or parts as one.

To another process goes where they lie, not what they hold. Not here: which images are where.
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MappedArray:
    """Where a memory-mapped array lies, so that another process maps it instead of a copy sent."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, array: Any) -> Any:
        """Return where an array is mapped from, or what was given if it is not a whole map."""
        if not isinstance(array, np.memmap) or not isinstance(array.base, mmap.mmap):
            return array
        if array.filename is None or not array.flags.c_contiguous:
            return array
        return cls(Path(array.filename), array.dtype, array.shape, array.offset)

    def open(self) -> NDArray[Any]:
        """Return the array, mapped read-only."""
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


class JoinedImages:
    """Images of several arrays as one: image i is number ``places[i,1]`` of part ``places[i,0]``.

    It is read as an array is, by a row, a slice or an array of rows, and cannot be written to.
    Raises ValueError where parts differ in kind or have no such place.
    """

    def __init__(self, parts: Sequence[NDArray[np.uint8]], places: NDArray[np.int32]):
        if len({(part.dtype, part.shape[1:]) for part in parts}) != 1:
            raise ValueError("parts must be there and hold images of one size")
        lengths = np.array([len(part) for part in parts])
        if places.ndim != 2 or places.shape[1] != 2 or (places < 0).any():
            raise ValueError("places must be pairs of part and number")
        if (places[:, 0] >= len(parts)).any() or (places[:, 1] >= lengths[places[:, 0]]).any():
            raise ValueError("there are places that no part has")
        self._parts, self._places = tuple(parts), places
        self.dtype = parts[0].dtype
        self.shape = (len(places), *parts[0].shape[1:])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        places = self._places[rows]
        if places.ndim == 1:
            return self._parts[places[0]][places[1]]
        images = np.empty((len(places), *self.shape[1:]), self.dtype)
        for number in np.unique(places[:, 0]):
            own = places[:, 0] == number
            images[own] = self._parts[number][places[own, 1]]
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_parts": [MappedArray.of(part) for part in self._parts]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        parts = (one.open() if isinstance(one, MappedArray) else one for one in state["_parts"])
        self.__dict__.update(state | {"_parts": tuple(parts)})


Images = NDArray[np.uint8] | JoinedImages
"""Images (n,size,size) uint8, to be read by a row, a slice or an array of rows."""
