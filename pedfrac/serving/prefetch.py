"""Images prepared batch by batch: in threads, and many DICOM ones in processes.

OpenCV lets go of the interpreter while it decodes, the decoders of DICOM hold it. Not here: how a
image is prepared (images).
"""

import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from pedfrac.compute.main_guard import require_main_guard
from pedfrac.compute.processes import start_worker
from pedfrac.imaging.dicom import is_dicom
from pedfrac.serving.images import Image, PreparedImage

logger = logging.getLogger(__name__)
FEW = 64  # DICOM images that are read before processes, which take seconds to start, are worth it
Prepare = Callable[[Image], PreparedImage]


def prepared_batches(
    images: Sequence[Image], prepare: Prepare, batch_size: int, *, ahead: int = 1, few: int = FEW
) -> Iterator[list[PreparedImage]]:
    """Yield images as ``prepare`` returns them, in their order.

    ``ahead`` batches are read while the caller works on one. An image that crashes its decoder
    process gets an ``error``, and the others continue. ``prepare`` must be known to
    other processes by name where there are more DICOM images than ``few``.
    """
    waiting: deque[list[tuple[Image, Future[PreparedImage]]]] = deque()
    pools = _Pools(prepare, few)
    try:
        for start in range(0, len(images), batch_size):
            some = images[start : start + batch_size]
            waiting.append([(image, pools.submit(image)) for image in some])
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

    def submit(self, image: Image) -> Future[PreparedImage]:
        if self._few > 0 or not is_dicom(image.path):
            self._few -= is_dicom(image.path)
            return self._threads.submit(self._prepare, image)
        try:
            self._processes = self._processes or _processes(self._cores)
            return self._processes.submit(self._prepare, image)
        except BrokenProcessPool:
            self._processes = _processes(self._cores)
            return self._processes.submit(self._prepare, image)

    def result(self, image: Image, future: Future[PreparedImage]) -> PreparedImage:
        try:
            return future.result()
        except BrokenProcessPool:  # by this image or another that was read at the time
            return self._alone(image)

    def _alone(self, image: Image) -> PreparedImage:
        with _processes(1) as pool:
            try:
                return pool.submit(self._prepare, image).result()
            except BrokenProcessPool:
                reason = "the process that decoded it crashed, or was killed for memory"
                return PreparedImage(image, age=image.age, error=f"{image}: {reason}")

    def close(self) -> None:
        for pool in (self._threads, self._processes):
            if pool is not None:
                pool.shutdown(cancel_futures=True)


def _processes(number: int) -> ProcessPoolExecutor:
    require_main_guard()
    # spawn, since a fork of a process that has used torch or OpenCV threads may hang
    return ProcessPoolExecutor(number, multiprocessing.get_context("spawn"), start_worker)
