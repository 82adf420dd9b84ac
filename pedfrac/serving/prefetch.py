"""Films prepared batch by batch: in threads, and many DICOM ones in processes.

OpenCV lets go of the interpreter while it decodes, the decoders of DICOM hold it. Not here: how a
film is prepared (films).
"""

import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from pedfrac.compute.processes import start_worker
from pedfrac.imaging.dicom import is_dicom
from pedfrac.serving.images import Film, PreparedFilm

logger = logging.getLogger(__name__)
FEW = 64  # DICOM films that are read before processes, which take seconds to start, are worth it
Prepare = Callable[[Film], PreparedFilm]


def prepared_batches(
    films: Sequence[Film], prepare: Prepare, batch_size: int, *, ahead: int = 1, few: int = FEW
) -> Iterator[list[PreparedFilm]]:
    """Yield films as ``prepare`` returns them, in their order.

    So many batches ``ahead`` are read while the caller is busy with one. A film whose decoder
    takes its process down gets an ``error`` and the others go on. ``prepare`` must be known to
    other processes by name where there are more DICOM films than ``few``.
    """
    waiting: deque[list[tuple[Film, Future[PreparedFilm]]]] = deque()
    pools = _Pools(prepare, few)
    try:
        for start in range(0, len(films), batch_size):
            some = films[start : start + batch_size]
            waiting.append([(film, pools.submit(film)) for film in some])
            if len(waiting) > ahead:
                yield [pools.result(*one) for one in waiting.popleft()]
        while waiting:
            yield [pools.result(*one) for one in waiting.popleft()]
    finally:
        pools.close()


class _Pools:
    def __init__(self, prepare: Prepare, few: int):
        self._prepare, self._few = prepare, few
        self._cores = os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self._cores)
        self._processes: ProcessPoolExecutor | None = None

    def submit(self, film: Film) -> Future[PreparedFilm]:
        if self._few > 0 or not is_dicom(film.path):
            self._few -= is_dicom(film.path)
            return self._threads.submit(self._prepare, film)
        try:
            self._processes = self._processes or _processes(self._cores)
            return self._processes.submit(self._prepare, film)
        except BrokenProcessPool:
            self._processes = _processes(self._cores)
            return self._processes.submit(self._prepare, film)

    def result(self, film: Film, future: Future[PreparedFilm]) -> PreparedFilm:
        try:
            return future.result()
        except BrokenProcessPool:  # by this film or another that was read at the time
            return self._alone(film)

    def _alone(self, film: Film) -> PreparedFilm:
        with _processes(1) as pool:
            try:
                return pool.submit(self._prepare, film).result()
            except BrokenProcessPool:
                reason = "the process that decoded it crashed, or was killed for memory"
                return PreparedFilm(film, age=film.age, error=f"{film}: {reason}")

    def close(self) -> None:
        for pool in (self._threads, self._processes):
            if pool is not None:
                pool.shutdown(cancel_futures=True)


def _processes(number: int) -> ProcessPoolExecutor:
    # spawn, since a fork of a process that has used torch or OpenCV threads may hang
    return ProcessPoolExecutor(number, multiprocessing.get_context("spawn"), start_worker)
