"""Packs: prepared images in memory-mapped uint8 arrays, with an index and boxes in their pixels.

Not here: how an image is prepared (pixels.py), in which files images lie (image_arrays.py) and what
makes a folder an artifact (storage.py).
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from pedfrac.config.data import Preparation
from pedfrac.errors import PedfracError
from pedfrac.imaging.boxes import yolo_to_xyxy
from pedfrac.imaging.letterbox import Placement
from pedfrac.packs.arrays import IMAGES, ImageArrays, allocate, part_path, save_array, start_of
from pedfrac.packs.decoding import FEW, Decoders, ImageRow, Job
from pedfrac.packs.pack import BOX_TYPES, BOXES, CORNERS, ENTRIES, INDEX, META, TEXT, list_some
from pedfrac.packs.reuse import EarlierPack
from pedfrac.storage.files import content_hash, write_json

logger = logging.getLogger(__name__)
CHUNK = 16  # images per unit of work: at most so many per process are done again after a kill
BLOCK = 1 << 13  # boxes placed at a time, so that memory does not grow with them
ENTRY = np.dtype([("source", "S16"), ("checksum", "<i8")])  # -1 until the pixels are written
_IMAGE_CORNERS = ["image_x1", "image_y1", "image_x2", "image_y2"]
_BOX_SCHEMA = pa.schema(
    [(name, {"str": pa.large_string()}.get(kind, kind)) for name, kind in BOX_TYPES.items()]
)


def build_pack(
    folder: Path,
    table: pd.DataFrame,
    boxes: pd.DataFrame,
    root: Path,
    preparation: Preparation,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    earlier: Path | None = None,
) -> None:
    """Write the pack of a table of images into a folder; what a killed call left there is kept.

    ``table`` has a row per image (filestem, image relative to ``root``, width, height, …), which
    becomes the row order; ``boxes`` has filestem, class_id, xc, yc, w, h as fractions. ``workers``
    are processes, 0 one per core; ``progress(done, total)`` counts images. Pixels that a pack in an
    ``earlier`` folder has are shared by links, or copied where that is better; nothing there is
    written to. Raises PedfracError that names all images that cannot be decoded; the others are
    done by then and stay done.
    """
    _check_table(table)
    if earlier is not None and "sha256" in table and (table["sha256"] != "").all():
        known = EarlierPack.open(earlier, ENTRIES)
    else:
        known = None  # of a file that was not read nothing is known
    with Decoders(workers or _cores()) as decoders:
        if known is None and len(table) >= FEW:
            decoders.start()  # beside what follows
        (folder / META).unlink(missing_ok=True)
        markers = _write_tables(folder, table, boxes, preparation.size)
        sources = _sources(table, markers, preparation)
        with _Ledger.open(folder, sources, preparation.size, known) as ledger:
            if known is not None:
                _copy_known(ledger, known)
            jobs = _jobs(table, markers, root, ledger, preparation)
            _write_images(decoders, jobs, ledger, progress)
    meta = {
        "preparation": preparation.model_dump(),
        "n": len(table),
        "columns": {name: str(kind) for name, kind in table.dtypes.items()},
    }
    write_json(folder / META, meta)  # last: without it there is no pack


def _write_images(
    decoders: Decoders,
    jobs: Iterator[Job],
    ledger: "_Ledger",
    progress: Callable[[int, int], None] | None,
) -> None:
    """Have all jobs done; raise PedfracError that names every image that could not be decoded."""
    faults: list[str] = []
    total, left = len(ledger), len(ledger.rows_to_do())
    count = total - left
    _report(progress, count, total)
    for job, written in decoders.write(jobs, left):
        faults += written.faults.values()
        ledger.mark(list(written.checksums), list(written.checksums.values()))
        count += len(job.images)
        _report(progress, count, total)
    if faults:
        listed = "\n  ".join(sorted(faults))
        raise PedfracError(f"{len(faults)} of {total} images cannot be packed:\n  {listed}")


def _copy_known(ledger: "_Ledger", earlier: EarlierPack) -> None:
    """Copy the rows that are still to do and that an earlier pack has."""
    rows = ledger.rows_to_do()
    known = earlier.rows_of(ledger.sources[rows])
    rows, known = rows[known >= 0], known[known >= 0]
    if len(rows):
        earlier.copy(ledger.target, known, ledger.places[rows])
        ledger.mark(rows, earlier.images["checksum"][known])
        logger.info("%s: %d images copied from an earlier pack", ledger.target, len(rows))


def _jobs(
    table: pd.DataFrame,
    markers: "_Markers",
    root: Path,
    ledger: "_Ledger",
    preparation: Preparation,
) -> Iterator[Job]:
    """Yield the images to do, some at a time, in order."""
    todo = ledger.rows_to_do()
    if not len(todo):
        return
    start = start_of(ledger.target)
    chunk = min(CHUNK, 1 + len(todo) // CHUNK)  # few images are to be shared, too
    hashes = table["sha256"] if "sha256" in table else pd.Series("", index=table.index)
    own = (*(table[name].array for name in ("image", "height", "width")), hashes.array)
    for rows in (todo[at : at + chunk] for at in range(0, len(todo), chunk)):
        columns = rows, ledger.places[rows], *(each[rows] for each in own)
        images = [
            ImageRow(int(row), int(place), root / image, (height, width), markers[row], sha256)
            for row, place, image, height, width, sha256 in zip(*columns, strict=True)
        ]
        yield Job(ledger.target, start, images, preparation)


class _Ledger:
    """The source of each image of a pack, and the checksum of its pixels once written.

    It becomes a file of the pack. Until then it records which rows are written, so that an
    interrupted build of the same images can continue.
    """

    def __init__(self, folder: Path, images: NDArray[np.void]):
        arrays = ImageArrays.of(folder)
        self._images, self._thread = images, ThreadPoolExecutor(1)
        self._left = images["checksum"] < 0
        self._written: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
        self._marking: Future[None] | None = None
        self.target = arrays.parts[-1]  # of which alone there are rows to do: others are shared
        self.places = arrays.places[:, 1]

    def __len__(self) -> int:
        return len(self._images)

    def __enter__(self) -> "_Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        rest = self._thread.submit(self._mark)  # what came while the last marking was under way
        self._thread.shutdown()
        for marking in filter(None, (self._marking, rest)):
            marking.result()  # raises what it raised

    @classmethod
    def open(
        cls, folder: Path, sources: NDArray[np.bytes_], size: int, earlier: EarlierPack | None
    ) -> "_Ledger":
        """Return the ledger that a killed build left, or a new one beside new arrays."""
        path = folder / ENTRIES
        try:
            images = np.load(path, mmap_mode="r+", allow_pickle=False)
            if images.dtype == ENTRY and np.array_equal(images["source"], sources):
                done = int((images["checksum"] >= 0).sum())
                logger.info("%s: %d of %d images are packed already", folder, done, len(images))
                return cls(folder, images)
        except (OSError, ValueError):
            pass
        for stale in (*folder.glob("*.npy"), *folder.glob("done-*")):
            stale.unlink()
        # last, so that arrays of which it speaks are there
        save_array(path, _lay_out(folder, sources, size, earlier))
        return cls(folder, np.load(path, mmap_mode="r+", allow_pickle=False))

    @property
    def sources(self) -> NDArray[np.bytes_]:
        """What each image is made of (n,)."""
        return self._images["source"]

    def rows_to_do(self) -> NDArray[np.int64]:
        """Return the rows that are not written, in order."""
        return np.flatnonzero(self._left)

    def mark(self, rows: Sequence[int] | NDArray[np.int64], checksums: Any) -> None:
        """Record rows as written once they are on disk, without blocking."""
        self._left[rows] = False
        self._written.put((rows, checksums))
        if self._marking is None or self._marking.done():
            if self._marking is not None:
                self._marking.result()  # raises what it raised
            self._marking = self._thread.submit(self._mark)

    def _mark(self) -> None:
        """Mark all that is written by now: a slow disk is waited for less often, not longer."""
        written = [self._written.get() for _ in range(self._written.qsize())]
        if not written:
            return  # all is shared, perhaps: what is linked is not opened to be written to
        # On the disk before the ledger says so, whatever stops the machine next.
        with self.target.open("r+b") as images:
            os.fsync(images.fileno())
        for rows, checksums in written:
            self._images["checksum"][rows] = checksums


def _lay_out(
    folder: Path, sources: NDArray[np.bytes_], size: int, earlier: EarlierPack | None
) -> NDArray[np.void]:
    """Create the arrays of a pack, linked or new; return the initial ledger."""
    images = np.zeros(len(sources), ENTRY)
    images["source"], images["checksum"] = sources, -1
    known = np.full(len(sources), -1) if earlier is None else earlier.rows_of(sources)
    places = None if earlier is None else earlier.share(folder, known)
    if earlier is None or places is None:
        allocate(folder / IMAGES, len(images), size)
        return images
    images["checksum"] = np.where(known < 0, -1, earlier.images["checksum"][known])
    if new := int((known < 0).sum()):
        allocate(part_path(folder, int(places[:, 0].max())), new, size)
    logger.info(
        "%s: %d of %d images are of an earlier pack", folder, len(images) - new, len(images)
    )
    return images


@dataclass(frozen=True)
class _Markers:
    """The marker boxes of all images, xyxy in the pixels of each, concatenated by row."""

    corners: NDArray[np.float64]
    starts: NDArray[np.int64]

    def __getitem__(self, row: int) -> NDArray[np.float64]:
        return self.corners[self.starts[row] : self.starts[row + 1]]


def _write_tables(folder: Path, table: pd.DataFrame, boxes: pd.DataFrame, size: int) -> _Markers:
    """Write the index and the boxes of its images; return the markers among them."""
    csv.write_csv(pa.Table.from_pandas(table, preserve_index=False), folder / INDEX)
    rows = pd.Index(table["filestem"]).get_indexer(pd.Index(boxes["filestem"]))
    order = np.argsort(rows, kind="stable")[np.count_nonzero(rows < 0) :]
    shapes, text = table[["height", "width"]].to_numpy(), []
    with csv.CSVWriter(folder / BOXES, _BOX_SCHEMA) as file:
        for own in np.split(order, range(BLOCK, len(order), BLOCK)):
            placed = _place_boxes(boxes.iloc[own].assign(row=rows[own]), shapes[rows[own]], size)
            columns = placed[list(BOX_TYPES)].round(3)
            file.write_table(pa.Table.from_pandas(columns, _BOX_SCHEMA, preserve_index=False))
            text.append(placed.loc[placed["class_id"] == TEXT, ["row", *_IMAGE_CORNERS]].to_numpy())
    markers = np.concatenate(text)
    starts = np.searchsorted(markers[:, 0], np.arange(len(table) + 1))
    return _Markers(np.ascontiguousarray(markers[:, 1:]), starts)


def _place_boxes(boxes: pd.DataFrame, shapes: NDArray[np.int64], size: int) -> pd.DataFrame:
    """Return boxes with corners xyxy in the image (``shapes`` (n,2)) and in the pack."""
    # one number for each shape, since to sort pairs takes several times as long
    most = 1 << 32
    different, which = np.unique(shapes @ [most, 1], return_inverse=True)
    placements = [Placement.of(one // most, one % most, size) for one in different.tolist()]
    scales = np.array([one.scale for one in placements])[which]
    shifts = np.array([(one.dx, one.dy) * 2 for one in placements], np.float64)
    fractions = boxes[["xc", "yc", "w", "h"]].to_numpy(np.float64)
    image = yolo_to_xyxy(fractions, 1, 1) * shapes[:, [1, 0, 1, 0]].astype(np.float64)
    packed = image * scales[:, None] + shifts.reshape(-1, 4)[which]
    corners = np.hstack([image, packed])
    return boxes.assign(**dict(zip([*_IMAGE_CORNERS, *CORNERS], corners.T, strict=True)))


def _sources(
    table: pd.DataFrame, markers: _Markers, preparation: Preparation
) -> NDArray[np.bytes_]:
    """Return the hash (n,) of each image's sources: file, size, markers and preparation.

    A file without a recorded SHA-256 is identified by its name.
    """
    begun = hashlib.blake2b(content_hash(preparation.model_dump()).encode(), digest_size=16)
    named = table["image"]
    file = named if "sha256" not in table else table["sha256"].mask(table["sha256"] == "", named)
    found = np.empty(len(table), "S16")
    for row, image in enumerate(zip(file, table["height"], table["width"], strict=True)):
        source = begun.copy()
        source.update("{} {} {} ".format(*image).encode())
        source.update(markers[row].data)
        found[row] = source.digest()
    return found


def _check_table(table: pd.DataFrame) -> None:
    if table.empty:
        raise PedfracError("there are no images to pack")
    twice = table["filestem"][table["filestem"].duplicated()]
    if len(twice):
        raise PedfracError(f"{len(twice)} images are listed twice: {list_some(list(twice))}")


def _report(progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def _cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
