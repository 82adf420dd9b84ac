"""Packs: prepared films in one memory-mapped uint8 array, with an index and boxes in its pixels.

Not here: how a film is prepared (pixels.py) and what makes a folder an artifact (storage.py).
"""

import json
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from pedfrac.config import Preparation
from pedfrac.errors import PedfracError
from pedfrac.pixels import Boxes, Placement, prepare, yolo_to_xyxy
from pedfrac.processes import start_worker
from pedfrac.records import CLASSES, read_table, write_table
from pedfrac.storage import content_hash, write_json

logger = logging.getLogger(__name__)

IMAGES, INDEX, BOXES, META = "images.npy", "index.csv", "boxes.csv", "pack.json"
TEXT = CLASSES.index("text")  # side markers and other burnt-in text
CHUNK = 32  # films per unit of work: at most so many per process are done again after a kill
FEW = 32  # below this, starting processes costs more than they save

_CORNERS = ["x1", "y1", "x2", "y2"]
BOX_TYPES = {"filestem": "str", "row": "int64", "class_id": "int64"} | dict.fromkeys(
    _CORNERS, "float64"
)
_FILM_CORNERS = ["film_x1", "film_y1", "film_x2", "film_y2"]


@dataclass(frozen=True, eq=False)
class Pack:
    """Films (n,size,size) uint8, and row by row what is known of them."""

    images: NDArray[np.uint8]
    index: pd.DataFrame
    boxes: pd.DataFrame
    preparation: Preparation

    @classmethod
    def open(cls, folder: Path) -> "Pack":
        """Return the pack in a folder, its films mapped read-only.

        Raises PedfracError where a file is missing or the files do not fit each other.
        """
        try:
            meta = json.loads((folder / META).read_text())
            preparation = Preparation.model_validate(meta["preparation"])
            index = read_table(folder / INDEX, meta["columns"])
            boxes = read_table(folder / BOXES, BOX_TYPES)
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
) -> None:
    """Write the pack of a table of films into a folder; what a killed call left there is kept.

    ``table`` has a row per film (filestem, image relative to ``root``, width, height, …), which
    becomes the row order; ``boxes`` has filestem, class_id, xc, yc, w, h as fractions. ``workers``
    are processes, 0 one per core; ``progress(done, total)`` counts films. Raises PedfracError that
    names all films that cannot be decoded; the others are done by then and stay done.
    """
    _check_table(table)
    placed = _place_boxes(table, boxes, preparation.size)
    inputs = _inputs_hash(table, placed, preparation)
    if _finished(folder, inputs):
        return
    ledger = _Ledger.open(folder, len(table), preparation.size, inputs)
    films = _films(table, placed, root)
    jobs = [
        _Job(folder / IMAGES, [films[row] for row in rows], preparation)
        for rows in ledger.chunks_to_do()
    ]
    faults: list[str] = []
    count = len(table) - sum(len(job.films) for job in jobs)
    _report(progress, count, len(table))
    for job, found in _run(jobs, workers or _cores()):
        faults += found.values()
        ledger.mark([film.row for film in job.films if film.row not in found])
        count += len(job.films)
        _report(progress, count, len(table))
    if faults:
        listed = "\n  ".join(sorted(faults))
        raise PedfracError(f"{len(faults)} of {len(table)} films cannot be packed:\n  {listed}")
    _write_tables(folder, table, placed, preparation, inputs)
    ledger.close()


@dataclass(frozen=True)
class _Film:
    """One film to prepare: its row, file, size (height, width) on record, and marker boxes."""

    row: int
    path: Path
    shape: tuple[int, int]
    text: Boxes


@dataclass(frozen=True)
class _Job:
    """Consecutive films whose pixels one process writes."""

    images: Path
    films: list[_Film]
    preparation: Preparation


def _prepare_job(job: _Job) -> dict[int, str]:
    """Write the films of a job into their rows; return the faults by row."""
    faults: dict[int, str] = {}
    images = np.lib.format.open_memmap(job.images, mode="r+")
    for film in job.films:
        try:
            images[film.row] = _prepare_film(film, job.preparation)
        except PedfracError as error:
            faults[film.row] = str(error)
    images.flush()  # on disk before the ledger says so, whatever stops the machine next
    return faults


def _prepare_film(film: _Film, preparation: Preparation) -> NDArray[np.uint8]:
    pixels, placement = prepare(film.path, film.text, preparation)
    if placement.source != film.shape:
        # The boxes were placed by the size on record: on another film they would lie elsewhere.
        raise PedfracError(
            f"{film.path}: must have the {film.shape} pixels (height, width) on record, "
            f"found {placement.source}"
        )
    return pixels


def _run(jobs: list[_Job], workers: int) -> Iterator[tuple[_Job, dict[int, str]]]:
    """Yield each job with its faults as it is done, in this process or in several."""
    if min(workers, len(jobs)) < 2 or sum(len(job.films) for job in jobs) < FEW:
        yield from ((job, _prepare_job(job)) for job in jobs)
        return
    # Spawn, since a fork of a process that has used torch or OpenCV threads may hang.
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), multiprocessing.get_context("spawn"), start_worker
    )
    try:
        running: dict[Future[dict[int, str]], _Job] = {
            pool.submit(_prepare_job, job): job for job in jobs
        }
        for future in as_completed(running):
            yield running[future], future.result()
    except BrokenProcessPool:
        raise PedfracError(
            f"one of {workers} processes that decode films was killed, perhaps for memory: "
            "start again with fewer workers, and what is done stays done"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


class _Ledger:
    """Which rows of an unfinished pack are written: a file of one byte per row.

    Its name holds the hash of the inputs, so that a build of other films never goes on from it.
    """

    def __init__(self, path: Path, done: NDArray[np.bool_]):
        self._path = path
        self._done = done

    @classmethod
    def open(cls, folder: Path, n: int, size: int, inputs: str) -> "_Ledger":
        """Return the ledger that a killed build left, or a new one beside a new array."""
        path = folder / f"done-{inputs[:16]}"
        try:
            done = np.frombuffer(path.read_bytes(), np.bool_).copy()
            if len(done) == n and (folder / IMAGES).exists():
                logger.info("%s: %d of %d films are packed already", folder, done.sum(), n)
                return cls(path, done)
        except FileNotFoundError:
            pass
        for stale in folder.glob("done-*"):
            stale.unlink()
        _allocate(folder, n, size)
        path.write_bytes(bytes(n))
        return cls(path, np.zeros(n, np.bool_))

    def chunks_to_do(self) -> list[NDArray[np.int64]]:
        """Return the rows to do, CHUNK at a time, in order."""
        rows = np.flatnonzero(~self._done).astype(np.int64)
        return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]

    def mark(self, rows: list[int]) -> None:
        """Note that rows are written."""
        with self._path.open("r+b") as file:
            for row in rows:
                file.seek(row)
                file.write(b"\1")

    def close(self) -> None:
        """Remove the ledger: the pack is finished."""
        self._path.unlink()


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
    film, packed = np.empty((len(placed), 4)), np.empty((len(placed), 4))
    fractions = placed[["xc", "yc", "w", "h"]].to_numpy(np.float64)
    shapes = _shapes(table)
    for row, at in placed.groupby("row").indices.items():
        height, width = shapes[row]
        film[at] = yolo_to_xyxy(fractions[at], width, height)
        packed[at] = Placement.of(height, width, size).apply(film[at])
    placed[_FILM_CORNERS], placed[_CORNERS] = film, packed
    return placed[["filestem", "row", "class_id", *_FILM_CORNERS, *_CORNERS]]


def _films(table: pd.DataFrame, placed: pd.DataFrame, root: Path) -> list[_Film]:
    text = placed[placed["class_id"] == TEXT]
    corners = text[_FILM_CORNERS].to_numpy(np.float64)
    at = text.groupby("row").indices
    return [
        _Film(row, root / image, shape, corners[at.get(row, [])])
        for row, (image, shape) in enumerate(zip(table["image"], _shapes(table), strict=True))
    ]


def _shapes(table: pd.DataFrame) -> list[tuple[int, int]]:
    return [
        (int(height), int(width))
        for height, width in zip(table["height"], table["width"], strict=True)
    ]


def _inputs_hash(table: pd.DataFrame, placed: pd.DataFrame, preparation: Preparation) -> str:
    frames = [frame.to_csv(index=False) for frame in (table, placed)]
    return content_hash([preparation.model_dump(), *frames])


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
