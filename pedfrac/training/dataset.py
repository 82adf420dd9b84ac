"""Datasets: images of a pack with their labels, and the two sets that one network learns from."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pedfrac.errors import PedfracError
from pedfrac.packs.mapped import Images, MappedArray
from pedfrac.training.findings import Findings
from pedfrac.training.loader import Feed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Some images of a pack with their labels: images (n, size, size) uint8, read when needed.

    ``years`` (n,): recorded ages, for a network that learns them.
    """

    name: str
    images: Images
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    filestems: Sequence[str]
    patients: NDArray[np.int64]
    years: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        # to another process goes the place of a mapped array, not its images
        return self.__dict__ | {"images": MappedArray.of(self.images)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        images = state["images"]
        opened = images.open() if isinstance(images, MappedArray) else images
        self.__dict__.update(state | {"images": opened})

    def part(self, positions: Tensor) -> "ImageSet":
        """Return the images at some positions, as a set of their own."""
        chosen = positions.numpy()
        return replace(
            self,
            rows=self.rows[chosen],
            labels=self.labels[chosen],
            filestems=[self.filestems[k] for k in chosen],
            patients=self.patients[chosen],
            years=None if self.years is None else self.years[chosen],
        )

    def feed(self, device: torch.device) -> Feed:
        """Return the feed of these images to a device."""
        return Feed(self.images, self.rows, device)

    def summary(self, classes: int) -> dict[str, Any]:
        """Return how many images, patients and images of each class there are."""
        return {
            "images": len(self),
            "patients": len(np.unique(self.patients)),
            "classes": np.bincount(self.labels, minlength=classes).tolist(),
        }


@dataclass(frozen=True)
class TrainingData:
    """What one model learns from; it cannot be made with a patient on both sides.

    ``findings``: the boxes of the training images, for a network with finding maps.
    """

    name: str
    classes: Sequence[str]
    train: ImageSet
    validation: ImageSet
    findings: Findings | None = None

    def __post_init__(self) -> None:
        shared = np.intersect1d(self.train.patients, self.validation.patients)
        if len(shared):
            raise PedfracError(
                f"{self.name}: {len(shared)} patients are in training and validation, "
                f"such as {shared[:3].tolist()}; a patient must be in one only"
            )
        for images in (self.train, self.validation):
            if len(images) == 0:
                raise PedfracError(f"{self.name}: no {images.name} image; at least one is needed")
            missing = [
                label for k, label in enumerate(self.classes) if not (images.labels == k).any()
            ]
            # without both kinds neither the loss nor the metric that chooses the epoch means much
            if len(self.classes) - len(missing) < 2:
                raise PedfracError(
                    f"{self.name}: the {len(images)} {images.name} images hold no image of "
                    f"{', '.join(missing)}; at least two classes are needed"
                )
            if missing:
                logger.warning("%s: no %s image of %s", self.name, images.name, ", ".join(missing))
