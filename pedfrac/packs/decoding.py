"""Decode images in parallel; each worker writes its rows of the packed array.

Kept light to import, because every worker process imports it.
"""

import hashlib
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from pedfrac.compute.main_guard import require_main_guard
from pedfrac.compute.processes import start_worker
from pedfrac.errors import PedfracError
from pedfrac.imaging.boxes import Boxes
from pedfrac.imaging.decoding import decode_bytes
from pedfrac.imaging.preprocessing import prepare

if TYPE_CHECKING:
    from pedfrac.config.data import Preparation
FEW = 512  # below this, starting processes costs more than threads lose by waiting for each other


@dataclass(frozen=True)
class ImageRow:
    """One image to prepare: its row in the pack and its place in the array file.

    ``path``: the image file; ``shape``: its recorded (height, width); ``text``: its marker boxes;
    ``sha256``: of the file as recorded, empty where it is not.
    """

    row: int
    place: int
    path: Path
    shape: tuple[int, int]
    text: Boxes
    sha256: str = ""


@dataclass(frozen=True)
class Job:
    """Images written together into an array file whose first row is at byte ``start``."""

    array: Path
    start: int
    images: list[ImageRow]
    preparation: "Preparation"


@dataclass(frozen=True)
class Written:
    """What became of the images of a job: the CRC-32 of their pixels or a fault, by row."""

    checksums: dict[int, int] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)


class Decoders:
    """Processes that decode, or threads where images are few; they end with the block."""

    def __init__(self, workers: int):
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def start(self) -> None:
        """Start the other processes, which takes them a while, if they are not."""
        if self._pool is None and self._workers > 1:
            require_main_guard()
            # Spawn, since a fork of a process that has used torch or OpenCV threads may hang.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers - 1, context, start_worker)
            self._pool.submit(int)  # the first task is what starts them

    def write(self, jobs: Iterator[Job], images: int) -> Iterator[tuple[Job, Written]]:
        """Yield each job of ``images`` in all as it is done.

        Raises PedfracError where another process was killed.
        """
        with _one_thread_each():
            if self._workers < 2:
                yield from ((job, write_rows(job)) for job in jobs)
            elif images < FEW:
                yield from _by_threads(jobs, self._workers)
            else:
                self.start()
                yield from self._by_processes(jobs)

    def _by_processes(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, Written]]:
        assert self._pool is not None
        running: dict[Future[Written], Job] = {}
        at_once = 2 * (self._workers - 1)  # one each to go on with
        waiting = next(jobs, None)
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    running[self._pool.submit(write_rows, waiting)] = waiting
                    waiting = next(jobs, None)
                if waiting:  # The others need a while to start: this process works, too.
                    yield waiting, write_rows(waiting)
                    waiting = next(jobs, None)
                else:
                    wait(running, return_when=FIRST_COMPLETED)
                for ended in [one for one in running if one.done()]:
                    yield running.pop(ended), ended.result()
        except BrokenProcessPool:
            raise PedfracError(
                f"one of {self._workers} processes that decode images was killed, perhaps for "
                "memory: start again with fewer workers, and what is done stays done"
            ) from None


def _by_threads(jobs: Iterator[Job], workers: int) -> Iterator[tuple[Job, Written]]:
    # Unpacking, filtering and resizing let other threads of the interpreter go on.
    pool = ThreadPoolExecutor(workers)
    try:
        for job, written in [(job, pool.submit(write_rows, job)) for job in jobs]:
            yield job, written.result()
    finally:
        pool.shutdown(cancel_futures=True)


def write_rows(job: Job) -> Written:
    """Write the images of a job into their places; return what became of each."""
    done = Written()
    # Not by a map: its pages cost more than one write an image, and a full disk would kill.
    with job.array.open("r+b") as file:
        for image in job.images:
            try:
                pixels = _prepared(image, job.preparation)
            except PedfracError as error:
                done.faults[image.row] = str(error)
                continue
            file.seek(job.start + image.place * pixels.nbytes)
            file.write(pixels.data)
            done.checksums[image.row] = isal_zlib.crc32(pixels.data)
    return done


def _prepared(image: ImageRow, preparation: "Preparation") -> NDArray[np.uint8]:
    try:
        data = image.path.read_bytes()
    except OSError as error:
        raise PedfracError(f"{image.path}: cannot be read ({error.strerror})") from None
    if image.sha256 and hashlib.sha256(data).hexdigest() != image.sha256:
        raise PedfracError(f"{image.path}: has changed since the records were read; start again")
    name = str(image.path)
    pixels, placement = prepare(decode_bytes(data, name), image.text, preparation, name)
    if placement.source != image.shape:
        # The boxes were placed by the size on record: on another image they would lie elsewhere.
        raise PedfracError(
            f"{image.path}: must have the {image.shape} pixels (height, width) on record, "
            f"found {placement.source}"
        )
    return pixels


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep OpenCV to one thread here, too: the cores are given to processes."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
