"""Rows of a pack's array: films decoded by one process or several, each of which writes its own.

Light to import, since every process begins with it. Not here: what a pack is (packing.py).
"""

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from pedfrac.errors import PedfracError
from pedfrac.pixels import Boxes, prepare
from pedfrac.processes import start_worker

if TYPE_CHECKING:
    from pedfrac.config import Preparation

FEW = 128  # below this, starting processes costs more than they save


@dataclass(frozen=True)
class FilmRow:
    """One film to prepare: its row, file, size (height, width) on record, and marker boxes."""

    row: int
    path: Path
    shape: tuple[int, int]
    text: Boxes


@dataclass(frozen=True)
class Job:
    """Films whose pixels one process writes into a file whose rows begin at ``start``."""

    images: Path
    start: int
    films: list[FilmRow]
    preparation: "Preparation"


def write_all(jobs: list[Job], workers: int) -> Iterator[tuple[Job, dict[int, str]]]:
    """Yield each job as it is done, with its faults by row, by this process and others beside it.

    Raises PedfracError where another process was killed.
    """
    with _one_thread_each():
        if min(workers, len(jobs)) < 2 or sum(len(job.films) for job in jobs) < FEW:
            yield from ((job, write_rows(job)) for job in jobs)
        else:
            yield from _shared(jobs, min(workers, len(jobs)))


def write_rows(job: Job) -> dict[int, str]:
    """Write the films of a job into their rows; return the faults by row."""
    faults: dict[int, str] = {}
    # Not by a map: its pages cost more than one write a film, and a full disk would kill.
    with job.images.open("r+b") as file:
        for film in job.films:
            try:
                pixels = _prepared(film, job.preparation)
            except PedfracError as error:
                faults[film.row] = str(error)
                continue
            file.seek(job.start + film.row * pixels.nbytes)
            file.write(pixels.data)
    return faults


def _prepared(film: FilmRow, preparation: "Preparation") -> NDArray[np.uint8]:
    pixels, placement = prepare(film.path, film.text, preparation)
    if placement.source != film.shape:
        # The boxes were placed by the size on record: on another film they would lie elsewhere.
        raise PedfracError(
            f"{film.path}: must have the {film.shape} pixels (height, width) on record, "
            f"found {placement.source}"
        )
    return pixels


def _shared(jobs: list[Job], workers: int) -> Iterator[tuple[Job, dict[int, str]]]:
    # Spawn, since a fork of a process that has used torch or OpenCV threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers - 1, context, start_worker)
    waiting = deque(jobs)
    running: dict[Future[dict[int, str]], Job] = {}
    try:
        while waiting or running:
            while waiting and len(running) < 2 * (workers - 1):  # one each to go on with
                job = waiting.popleft()
                running[pool.submit(write_rows, job)] = job
            if waiting:  # The others need a while to start: this process works, too.
                job = waiting.pop()
                yield job, write_rows(job)
            else:
                wait(running, return_when=FIRST_COMPLETED)
            for ended in [one for one in running if one.done()]:
                yield running.pop(ended), ended.result()
    except BrokenProcessPool:
        raise PedfracError(
            f"one of {workers} processes that decode films was killed, perhaps for memory: "
            "start again with fewer workers, and what is done stays done"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep OpenCV to one thread here, too: the cores are given to processes."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
