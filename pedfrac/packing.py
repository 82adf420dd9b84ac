"""Packs: prepared films in one memory-mapped uint8 array, with an index and boxes in its pixels.

Not here: how a film is prepared (pixels.py) and what makes a folder an artifact (storage.py).
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from pedfrac.config import Preparation
from pedfrac.errors import PedfracError
from pedfrac.film_rows import FilmRow, Job, write_all
from pedfrac.pixels import Placement, yolo_to_xyxy
from pedfrac.records import CLASSES, read_table, write_table
from pedfrac.repacking import EarlierPack, copy_rows
from pedfrac.storage import content_hash, write_json

logger = logging.getLogger(__name__)

IMAGES, INDEX, BOXES, META = "images.npy", "index.csv", "boxes.csv", "pack.json"
TEXT = CLASSES.index("text")  # side markers and other burnt-in text
CHUNK = 16  # films per unit of work: at most so many per process are done again after a kill

_CORNERS = ["x1", "y1", "x2", "y2"]
BOX_TYPES = {"filestem": "str", "row": "int64", "class_id": "int64"} | dict.fromkeys(
    _CORNERS, "float64"
)
_NO_BOXES = pd.DataFrame(columns=list(BOX_TYPES)).astype(BOX_TYPES)
_FILM_CORNERS = ["film_x1", "film_y1", "film_x2", "film_y2"]


@dataclass(frozen=True, eq=False)
class Pack:
    """Films (n,size,size) uint8, and row by row what is known of them."""

    images: NDArray[np.uint8]
    index: pd.DataFrame
    boxes: pd.DataFrame
    preparation: Preparation

    @classmethod
    def open(cls, folder: Path, only: list[str] | None = None) -> "Pack":
        """Return the pack in a folder, its films mapped read-only.

        With ``only`` some columns of the index, and no boxes: the rest takes most of the memory.
        Raises PedfracError where a file is missing or the files do not fit each other.
        """
        try:
            meta = json.loads((folder / META).read_text())
            preparation = Preparation.model_validate(meta["preparation"])
            index = read_table(folder / INDEX, meta["columns"], only)
            boxes = read_table(folder / BOXES, BOX_TYPES) if only is None else _NO_BOXES
            images = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise PedfracError(f"{folder}: is no pack ({error})") from None
        pack = cls(images, index, boxes, preparation)
        pack._check(folder, meta.get("n"))
        return pack

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, filestems: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each film; raise PedfracError that names those not in the pack."""
        if unknown := [stem for stem in filestems if stem not in self._row_of]:
            raise PedfracError(
                f"{len(unknown)} of {len(filestems)} films are not in the pack: {_some(unknown)}"
            )
        return np.array([self._row_of[stem] for stem in filestems], dtype=np.int64)

    def boxes_of(self, row: int, class_id: int) -> NDArray[np.float32]:
        """Return the boxes (k,4) xyxy of a class on a film, in packed pixels."""
        places = self._box_places.get((int(row), class_id), np.empty(0, np.intp))
        return self._corners[places]

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {stem: row for row, stem in enumerate(self.index["filestem"])}

    @cached_property
    def _corners(self) -> NDArray[np.float32]:
        return self.boxes[_CORNERS].to_numpy(np.float32)

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
            raise PedfracError(f"{folder / BOXES}: has boxes of films that are not in the pack")


def build_pack(
    folder: Path,
    table: pd.DataFrame,
    boxes: pd.DataFrame,
    root: Path,
    preparation: Preparation,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    earlier: EarlierPack | None = None,
) -> None:
    """Write the pack of a table of films into a folder; what a killed call left there is kept.

    ``table`` has a row per film (filestem, image relative to ``root``, width, height, …), which
    becomes the row order; ``boxes`` has filestem, class_id, xc, yc, w, h as fractions. ``workers``
    are processes, 0 one per core; ``progress(done, total)`` counts films. Rows that an ``earlier``
    pack of the same preparation has are copied from it. Raises PedfracError that names all films
    that cannot be decoded; the others are done by then and stay done.
    """
    _check_table(table)
    placed = _place_boxes(table, boxes, preparation.size)
    inputs = _inputs_hash(table, placed, preparation)
    if _finished(folder, inputs):
        return
    with _Ledger.open(folder, len(table), preparation.size, inputs) as ledger:
        if earlier is not None:
            _copy_known(folder, ledger, earlier, earlier.rows_of(table, boxes))
        films, start = _films(table, placed, root), _start(folder / IMAGES)
        jobs = [
            Job(folder / IMAGES, start, [films[row] for row in rows], preparation)
            for rows in ledger.chunks_to_do()
        ]
        _write_films(jobs, ledger, workers or _cores(), progress)
        _write_tables(folder, table, placed, preparation, inputs)
        ledger.remove()


def _write_films(
    jobs: list[Job],
    ledger: "_Ledger",
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Have all jobs done; raise PedfracError that names every film that could not be decoded."""
    faults: list[str] = []
    total = len(ledger)
    count = total - sum(len(job.films) for job in jobs)
    _report(progress, count, total)
    for job, found in write_all(jobs, workers):
        faults += found.values()
        ledger.mark([film.row for film in job.films if film.row not in found])
        count += len(job.films)
        _report(progress, count, total)
    if faults:
        listed = "\n  ".join(sorted(faults))
        raise PedfracError(f"{len(faults)} of {total} films cannot be packed:\n  {listed}")


def _copy_known(
    folder: Path, ledger: "_Ledger", earlier: EarlierPack, known: NDArray[np.int64]
) -> None:
    """Copy the rows that are still to do and that an earlier pack has; ``known`` as rows_of."""
    rows = ledger.rows_to_do()
    rows = rows[known[rows] >= 0]
    if not len(rows):
        return
    images = np.load(earlier.images, mmap_mode="r", allow_pickle=False)
    target = folder / IMAGES, _start(folder / IMAGES)
    pairs = np.stack([known[rows], rows], axis=1)
    copy_rows((earlier.images, images.offset), target, pairs, images[0].nbytes)
    ledger.mark(rows.tolist())
    logger.info("%s: %d of %d films copied from %s", folder, len(rows), len(known), earlier.images)


def _start(images: Path) -> int:
    """Return at which byte the rows of an array begin."""
    return int(np.load(images, mmap_mode="r", allow_pickle=False).offset)


class _Ledger:
    """Which rows of an unfinished pack are written: a file of one byte per row.

    Its name holds the hash of the inputs, so that a build of other films never goes on from it.
    """

    def __init__(self, folder: Path, path: Path, done: NDArray[np.bool_]):
        self._images = folder / IMAGES
        self._path = path
        self._done = done
        self._thread = ThreadPoolExecutor(1)
        self._marking: Future[None] | None = None

    def __len__(self) -> int:
        return len(self._done)

    def __enter__(self) -> "_Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    @classmethod
    def open(cls, folder: Path, n: int, size: int, inputs: str) -> "_Ledger":
        """Return the ledger that a killed build left, or a new one beside a new array."""
        path = folder / f"done-{inputs[:16]}"
        try:
            done = np.frombuffer(path.read_bytes(), np.bool_).copy()
            if len(done) == n and (folder / IMAGES).exists():
                logger.info("%s: %d of %d films are packed already", folder, done.sum(), n)
                return cls(folder, path, done)
        except FileNotFoundError:
            pass
        for stale in folder.glob("done-*"):
            stale.unlink()
        _allocate(folder, n, size)
        path.write_bytes(bytes(n))
        return cls(folder, path, np.zeros(n, np.bool_))

    def rows_to_do(self) -> NDArray[np.int64]:
        """Return the rows that are not written, in order."""
        return np.flatnonzero(~self._done).astype(np.int64)

    def chunks_to_do(self) -> list[NDArray[np.int64]]:
        """Return the rows to do, CHUNK at a time, in order."""
        rows = self.rows_to_do()
        return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]

    def mark(self, rows: list[int]) -> None:
        """Note that rows are written, as soon as they are on the disk; work goes on meanwhile."""
        self._wait()
        self._done[rows] = True
        self._marking = self._thread.submit(self._mark, rows)

    def remove(self) -> None:
        """Remove the ledger: the pack is finished."""
        self._wait()
        self._path.unlink()

    def _wait(self) -> None:
        if self._marking is not None:
            self._marking.result()

    def _mark(self, rows: list[int]) -> None:
        # On the disk before the ledger says so, whatever stops the machine next.
        with self._images.open("r+b") as images:
            os.fsync(images.fileno())
        with self._path.open("r+b") as file:
            for row in rows:
                file.seek(row)
                file.write(b"\1")


def _allocate(folder: Path, n: int, size: int) -> None:
    """Make the array of zeros, with its room on the disk taken."""
    try:
        images = np.lib.format.open_memmap(
            folder / IMAGES, mode="w+", dtype=np.uint8, shape=(n, size, size)
        )
        images.flush()
        # Writing to a map on a full disk kills the process with no error that could be told.
        if hasattr(os, "posix_fallocate"):
            with (folder / IMAGES).open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, (folder / IMAGES).stat().st_size)
    except OSError as error:
        raise PedfracError(
            f"{folder / IMAGES}: cannot be made, {n * size * size / 1e9:.1f} GB are needed "
            f"({error.strerror})"
        ) from None


def _place_boxes(table: pd.DataFrame, boxes: pd.DataFrame, size: int) -> pd.DataFrame:
    """Return the boxes of the films of a table: row, class_id, xyxy in the film and in the pack."""
    rows = pd.Index(table["filestem"]).get_indexer(pd.Index(boxes["filestem"]))
    placed = boxes[rows >= 0].assign(row=rows[rows >= 0])
    placed = placed.sort_values("row", kind="stable").reset_index(drop=True)
    fractions = placed[["xc", "yc", "w", "h"]].to_numpy(np.float64)
    placements = [Placement.of(*shape, size) for shape in _shapes(table)]
    own = placed["row"].to_numpy()
    sides = np.array([one.source[::-1] * 2 for one in placements], np.float64)[own]
    scales = np.array([one.scale for one in placements])[own]
    shifts = np.array([(one.dx, one.dy) * 2 for one in placements], np.float64)[own]
    film = yolo_to_xyxy(fractions, 1, 1) * sides
    packed = film * scales[:, None] + shifts
    placed[_FILM_CORNERS], placed[_CORNERS] = film, packed
    return placed[["filestem", "row", "class_id", *_FILM_CORNERS, *_CORNERS]]


def _films(table: pd.DataFrame, placed: pd.DataFrame, root: Path) -> list[FilmRow]:
    text = placed[placed["class_id"] == TEXT]
    corners = text[_FILM_CORNERS].to_numpy(np.float64)
    at = text.groupby("row").indices
    return [
        FilmRow(row, root / image, shape, corners[at.get(row, [])])
        for row, (image, shape) in enumerate(zip(table["image"], _shapes(table), strict=True))
    ]


def _shapes(table: pd.DataFrame) -> list[tuple[int, int]]:
    return [
        (int(height), int(width))
        for height, width in zip(table["height"], table["width"], strict=True)
    ]


def _inputs_hash(table: pd.DataFrame, placed: pd.DataFrame, preparation: Preparation) -> str:
    boxes = placed[["row", "class_id", *_FILM_CORNERS]].to_numpy(np.float64)
    digest = hashlib.sha256(boxes.tobytes()).hexdigest()
    return content_hash([preparation.model_dump(), table.to_csv(index=False), digest])


def _finished(folder: Path, inputs: str) -> bool:
    """Return whether a build of the same inputs was killed after its last step."""
    try:
        meta = json.loads((folder / META).read_text())
    except (OSError, ValueError):
        return False
    ready = all((folder / name).exists() for name in (IMAGES, INDEX, BOXES))
    return ready and meta.get("inputs") == inputs and not list(folder.glob("done-*"))


def _write_tables(
    folder: Path,
    table: pd.DataFrame,
    placed: pd.DataFrame,
    preparation: Preparation,
    inputs: str,
) -> None:
    write_table(table, folder / INDEX)
    write_table(placed[list(BOX_TYPES)].round(3), folder / BOXES)
    meta = {
        "preparation": preparation.model_dump(),
        "n": len(table),
        "columns": {name: str(kind) for name, kind in table.dtypes.items()},
        "inputs": inputs,
    }
    write_json(folder / META, meta)


def _check_table(table: pd.DataFrame) -> None:
    if table.empty:
        raise PedfracError("there are no films to pack")
    twice = table["filestem"][table["filestem"].duplicated()]
    if len(twice):
        raise PedfracError(f"{len(twice)} films are listed twice: {_some(list(twice))}")


def _report(progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def _cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
