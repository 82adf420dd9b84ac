"""Embedding: the pooled features that a network's last layer sees, as a few numbers an image.

Not here: what the numbers are compared with (drift).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from pedfrac.models.classifier import ImageClassifier

Floats = NDArray[np.float64]
DIMENSIONS = 16  # most of the principal components that are kept
IMAGES_PER_DIMENSION = 10  # fewer tell nothing of a component: there are then fewer


@contextmanager
def watched(network: object) -> Iterator[list[Tensor]]:
    """Yield a list that fills with the features (n, d) of images that the network is asked about.

    It stays empty for a network that does not show its inside, such as an exported one.
    """
    found: list[Tensor] = []
    inside: Any = network.network if isinstance(network, ImageClassifier) else None
    last = inside.get_classifier() if inside else None
    if not isinstance(last, nn.Module):
        yield found
        return

    def keep(_: Any, given: tuple[Tensor, ...]) -> None:
        found.append(given[0].detach().flatten(1).float().cpu())

    handle = last.register_forward_pre_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


@dataclass(frozen=True, eq=False)
class Basis:
    """Principal components of features (d): ``mean`` (d,), ``components`` (k, d), whitening.

    Features leave it as k uncorrelated numbers with a standard deviation of 1 on the images that
    made it. These must not be the images that anything is compared with, since on its own images a
    basis shows less spread than on others.
    """

    mean: Floats
    components: Floats

    @classmethod
    def of(cls, features: Floats) -> "Basis":
        """Return the basis of features (n, d); with few images it has few components, or none."""
        mean = features.mean(axis=0) if len(features) else np.zeros(features.shape[1])
        most = min(DIMENSIONS, len(features) // IMAGES_PER_DIMENSION)
        if not most:
            return cls(mean, np.zeros((0, features.shape[1])))
        _, spread, turned = np.linalg.svd(features - mean, full_matrices=False)
        spread = spread / np.sqrt(len(features))
        kept = slice(0, min(most, int((spread > 1e-3 * spread[0]).sum())))
        return cls(mean, turned[kept] / spread[kept, None])

    def __call__(self, features: Floats) -> Floats:
        """Return features (n, d) as numbers (n, k)."""
        return np.asarray((features - self.mean) @ self.components.T)

    def __len__(self) -> int:
        return len(self.components)

    def __bool__(self) -> bool:
        return len(self.components) > 0
