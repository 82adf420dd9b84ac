"""Marked fractures: boxes of the generalist's fracture map, in the pixels of the user's image.

The generalist is asked about every image, of any age, so its map is the one that is shown and the
one whose boxes are measured. Not here: the map (models) and how it becomes boxes (scoring).
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from pedfrac.bundle.bundle import Bundle
from pedfrac.imaging.letterbox import Placement
from pedfrac.models.finding_maps import kept_maps
from pedfrac.scoring.finding_boxes import boxes_of_map
from pedfrac.serving.images import PreparedImage

FINDER = "generalist"


@contextmanager
def fracture_maps(bundle: Bundle) -> Iterator[list[Tensor]]:
    """Yield a list that fills with the maps (n, classes, h, w) of images that are scored."""
    with kept_maps(bundle.networks[FINDER]) as maps:
        yield maps


def boxes_in_words(
    bundle: Bundle, images: Sequence[PreparedImage], maps: Sequence[Tensor]
) -> list[str]:
    """Return the boxes of each image as JSON: x1, y1, x2, y2 in its pixels, score; best first.

    Empty where the network has no map of fractures. With mirrored views ``maps`` hold those of
    the images as they are first.
    """
    shape = bundle.info.fracture.maps
    if shape is None or "fracture" not in shape.classes or not maps:
        return [""] * len(images)
    place = shape.classes.index("fracture")
    whole = torch.cat(list(maps))[: len(images), place].numpy()
    return [_in_words(one, own, bundle) for one, own in zip(images, whole, strict=True)]


def _in_words(image: PreparedImage, heat: np.ndarray, bundle: Bundle) -> str:
    height, width = image.shape
    size = bundle.info.fracture.preparation.size
    placement = Placement.of(height, width, size)
    found = boxes_of_map(heat, (size, size), placement.corners)
    corners = placement.invert([one.corners for one in found]).round(1)
    corners = corners.clip(0, [width, height, width, height])
    names = ("x1", "y1", "x2", "y2")
    return json.dumps(
        [
            dict(zip(names, row.tolist(), strict=True)) | {"score": round(one.score, 4)}
            for row, one in zip(corners, found, strict=True)
        ]
    )
