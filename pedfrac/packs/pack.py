"""A pack: prepared images in one memory-mapped array, with an index and boxes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from pedfrac.config.data import Preparation
from pedfrac.data.schema import CLASSES
from pedfrac.data.tables import read_table
from pedfrac.errors import PedfracError
from pedfrac.packs.arrays import IMAGES, ImageArrays
from pedfrac.packs.mapped import Images

INDEX, BOXES, ENTRIES, META = "index.csv", "boxes.csv", "entries.npy", "pack.json"
CONTENT = (INDEX, BOXES, ENTRIES, META)  # tell all of a pack, wherever its pixels lie
TEXT = CLASSES.index("text")  # side markers and other burnt-in text
CORNERS = ["x1", "y1", "x2", "y2"]
BOX_TYPES = {"filestem": "str", "row": "int64", "class_id": "int64"} | dict.fromkeys(
    CORNERS, "float64"
)
NO_BOXES = pd.DataFrame(columns=list(BOX_TYPES)).astype(BOX_TYPES)


@dataclass(frozen=True, eq=False)
class Pack:
    """Images (n,size,size) uint8, and row by row what is known of them."""

    images: Images
    index: pd.DataFrame
    boxes: pd.DataFrame
    preparation: Preparation

    @classmethod
    def open(
        cls, folder: Path, only: list[str] | None = None, *, boxes: bool | None = None
    ) -> "Pack":
        """Return the pack in a folder, its images mapped read-only.

        With ``only`` some columns of the index and, unless ``boxes`` says otherwise, no boxes: the
        rest takes most of the memory.
        Raises PedfracError where a file is missing or the files do not fit each other.
        """
        try:
            meta = json.loads((folder / META).read_text())
            preparation = Preparation.model_validate(meta["preparation"])
            index = read_table(folder / INDEX, meta["columns"], only)
            with_boxes = only is None if boxes is None else boxes
            marked = read_table(folder / BOXES, BOX_TYPES) if with_boxes else NO_BOXES
            images = ImageArrays.of(folder).open()
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise PedfracError(f"{folder}: is no pack ({error})") from None
        pack = cls(images, index, marked, preparation)
        pack._check(folder, meta.get("n"))
        return pack

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, filestems: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each image; raise PedfracError that names those not in the pack."""
        if unknown := [stem for stem in filestems if stem not in self._row_of]:
            raise PedfracError(
                f"{len(unknown)} of {len(filestems)} images are not in the pack: "
                f"{list_some(unknown)}"
            )
        return np.array([self._row_of[stem] for stem in filestems], dtype=np.int64)

    def boxes_of(self, row: int, class_id: int) -> NDArray[np.float32]:
        """Return the boxes (k,4) xyxy of a class on an image, in packed pixels."""
        places = self._box_places.get((int(row), class_id), np.empty(0, np.intp))
        return self._corners[places]

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {stem: row for row, stem in enumerate(self.index["filestem"])}

    @cached_property
    def _corners(self) -> NDArray[np.float32]:
        return self.boxes[CORNERS].to_numpy(np.float32)

    @cached_property
    def _box_places(self) -> dict[tuple[int, int], NDArray[np.intp]]:
        return self.boxes.groupby(["row", "class_id"]).indices  # type: ignore[return-value]

    def _check(self, folder: Path, n: int | None) -> None:
        size = self.preparation.size
        if self.images.dtype != np.uint8 or self.images.shape != (n, size, size):
            raise PedfracError(
                f"{folder / IMAGES}: must be uint8 of shape {(n, size, size)}, "
                f"found {self.images.dtype} of {self.images.shape}"
            )
        if len(self.index) != n:
            raise PedfracError(f"{folder / INDEX}: must have {n} rows, found {len(self.index)}")
        if len(self.boxes) and not self.boxes["row"].between(0, len(self.index) - 1).all():
            raise PedfracError(f"{folder / BOXES}: has boxes of images that are not in the pack")


def list_some(names: Sequence[str], most: int = 10) -> str:
    """Return the first names in words, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
