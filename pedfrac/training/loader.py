"""The feed: images on their way to the device, one batch ahead of the step that takes them.

Where they all fit into a GPU's memory they are kept there; else each batch is read from the memory
map while the one before is learned from. Not here: labels, and what is done to the images.
"""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pedfrac.packs.mapped import Images

SHARE = 0.25  # of a GPU's free memory that images may take; the rest is the network's


class Feed:
    """Some rows of a pack's images (n, size, size) uint8, as batches on a device."""

    def __init__(self, images: Images, rows: NDArray[np.int64], device: torch.device):
        self._images, self._rows, self._device = images, rows, device
        self._kept = self._read(np.arange(len(rows))).to(device) if self._fits() else None

    def batches(self, places: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the images (batch, size, size) uint8 at each batch of places among the rows."""
        if self._kept is not None:
            # one copy of all places, since each would have the host wait for the device
            together = torch.cat(list(places)).to(self._device)
            yield from (self._kept[own] for own in together.split([len(own) for own in places]))
            return
        with closing(self._read_ahead(places)) as batches:
            for images in batches:
                yield images.to(self._device, non_blocking=True)

    def _read_ahead(self, places: Sequence[Tensor]) -> Generator[Tensor, None, None]:
        with ThreadPoolExecutor(1) as reader:
            waiting = [reader.submit(self._read, own.numpy()) for own in places[:1]]
            for own in places[1:]:
                waiting.append(reader.submit(self._read, own.numpy()))
                yield waiting.pop(0).result()
            yield from (future.result() for future in waiting)

    def _read(self, places: NDArray[np.int64]) -> Tensor:
        images = torch.from_numpy(self._images[self._rows[places]])
        return images.pin_memory() if self._device.type == "cuda" else images

    def _fits(self) -> bool:
        if self._device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(self._device)
        return len(self._rows) * self._images[:1].nbytes <= SHARE * free
