"""Findings: boxes as the target of finding maps, cell by cell, moved with their image.

A cell's target is read from the boxes at the very places that its pixels come from, so an image and
its boxes cannot be moved differently. Not here: the maps' network (models.finding_maps).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pedfrac.config.training import MapsConfig
from pedfrac.data.schema import CLASSES
from pedfrac.packs.pack import Pack

ENOUGH = 0.5  # share of a cell that a box must cover; of a smaller box the cell covered most counts
POINTS = 4  # along each side of a cell, at which the boxes are looked up
FRACTURE = "fracture"


@dataclass(frozen=True, eq=False)
class Findings:
    """The boxes of n images: ``boxes`` (n, most, 5) and of which classes they are known (n, k).

    A box is the place of its class among ``classes`` (-1: none, to fill up), then left, top, right
    and bottom in the image's coordinates from -1 to 1. ``known`` is 0 for a class of which an image
    has a finding whose place is not marked: that map learns nothing from it.
    """

    classes: tuple[str, ...]
    boxes: Tensor
    known: Tensor
    config: MapsConfig

    def to(self, device: torch.device) -> "Findings":
        """Return the same on a device."""
        return replace(self, boxes=self.boxes.to(device), known=self.known.to(device))

    def loss(self, maps: Tensor, moves: Tensor, places: Tensor) -> Tensor:
        """Return the weighted loss of maps (k, classes, h, w) of images at some places (k,).

        ``moves`` (k, 2, 3): how each image was moved.
        """
        targets = cell_targets(self.boxes[places], moves, maps.shape)
        return self.config.weight * map_loss(
            maps, targets, self.known[places], self.config.positive_weight
        )


def find_classes(pack: Pack, rows: NDArray[np.int64], config: MapsConfig) -> tuple[str, ...]:
    """Return the classes of which enough images (rows of the pack) have a box, in a fixed order.

    Boxes of text lie on pixels that preparation has filled, unless markers are left.
    """
    boxes = pack.boxes[pack.boxes["row"].isin(rows)]
    images = boxes.groupby("class_id")["row"].nunique()
    hidden = {"text"} if pack.preparation.markers != "off" else set()
    return tuple(
        name
        for name in CLASSES
        if name in config.classes
        and name not in hidden
        and images.get(CLASSES.index(name), 0) >= config.least_images
    )


def find_boxes(
    pack: Pack,
    rows: NDArray[np.int64],
    fractured: NDArray[np.int64],
    classes: Sequence[str],
    config: MapsConfig,
) -> Findings:
    """Return the boxes of images (rows of the pack), of which some are ``fractured`` (n,), 0 or 1.

    An image that is fractured without a box of it has a fracture whose place is not known.
    """
    height, width = pack.images.shape[1:]
    ids = [CLASSES.index(name) for name in classes]
    each = [
        [(place, *corners) for place, one in enumerate(ids) for corners in pack.boxes_of(row, one)]
        for row in rows
    ]
    boxes = np.full((len(rows), max([1, *map(len, each)]), 5), -1, np.float32)
    known = np.ones((len(rows), len(ids)), np.float32)
    for image, found in enumerate(each):
        if found:
            own = np.array(found, np.float32)
            own[:, 1:] = 2 * own[:, 1:] / (width, height, width, height) - 1
            boxes[image, : len(own)] = own
    if FRACTURE in classes:
        place = list(classes).index(FRACTURE)
        marked = (boxes[:, :, 0] == place).any(axis=1)
        known[:, place] = marked | (fractured == 0)
    return Findings(tuple(classes), torch.from_numpy(boxes), torch.from_numpy(known), config)


def cell_targets(boxes: Tensor, moves: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the targets (n, k, h, w), 0 or 1, of maps of that ``shape``, of moved images.

    ``boxes`` (n, most, 5) as in Findings, ``moves`` (n, 2, 3) the affine matrices from places of
    the moved image to places of the image (``functional.affine_grid``, whole sides from -1 to 1).
    A cell is positive where a box covers ENOUGH of it, or as much as of any cell.
    """
    images, classes, height, width = shape
    grid = functional.affine_grid(
        moves, [images, 1, height * POINTS, width * POINTS], align_corners=False
    )
    x, y = (grid[:, None, :, :, side] for side in (0, 1))
    kind, left, top, right, bottom = (boxes[:, :, None, None, part] for part in range(5))
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom) & (kind >= 0)
    share = functional.avg_pool2d(inside.float(), POINTS)
    most = share.amax(dim=(2, 3), keepdim=True).clamp(max=ENOUGH)
    positive = (share >= most) & (share > 0)
    return torch.stack([(positive & (kind == k)).any(dim=1) for k in range(classes)], dim=1).float()


def map_loss(maps: Tensor, targets: Tensor, known: Tensor, positive_weight: float) -> Tensor:
    """Return the binary cross-entropy of maps (n, k, h, w): mean over cells, sum over classes.

    ``known`` (n, k): 0 where an image's class teaches nothing.
    """
    weight = torch.full_like(targets[:1, :1, :1, :1], positive_weight)
    losses = functional.binary_cross_entropy_with_logits(
        maps.float(), targets, pos_weight=weight, reduction="none"
    )
    return (losses.mean(dim=(2, 3)) * known).sum(dim=1).mean()
