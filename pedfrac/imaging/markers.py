"""Side markers and other burnt-in text: removed by filling or inpainting their boxes.

Training, evaluation, explanation and prediction use the same code, through ``prepare``.
"""

import math
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pedfrac.imaging.boxes import as_boxes
from pedfrac.imaging.decoding import Image

if TYPE_CHECKING:
    pass

# Labels are drawn tight: on real images the letter reaches up to 5 px beyond its box, and the
# shadow of a burnt-in one likewise. At 6 px, 3 of the 18,090 fracture boxes of GRAZPEDWRI-DX
# touch a removed region (2 touch the bare box), none by more than 10 % of its area.
MARKER_MARGIN = 6
RING = 5
INPAINT_RADIUS = 5


def remove_markers(image: Image, boxes: ArrayLike, how: Literal["fill", "inpaint", "off"]) -> Image:
    """Return a copy of an image (height,width) without its marker regions (n,4) xyxy.

    Boxes are clipped to the image and grown by MARKER_MARGIN; pixels outside them do not change.
    """
    cleaned = image.copy()
    remove_markers_in_place(cleaned, boxes, how)
    return cleaned


class _Region(NamedTuple):
    """A rectangle of pixels; bottom and right are the first that are not in it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def pixels(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def touches(self, other: "_Region") -> bool:
        """Return whether they overlap or have pixels that are neighbours, across a corner too."""
        return (
            self.top <= other.bottom
            and other.top <= self.bottom
            and self.left <= other.right
            and other.left <= self.right
        )


def _regions(boxes: ArrayLike, shape: tuple[int, ...]) -> list[_Region]:
    """Return the pixels of each box, rounded outward, grown by the margin, clipped to the image."""
    height, width = shape
    found = []
    for x1, y1, x2, y2 in as_boxes(boxes):
        top, left = (max(0, math.floor(low) - MARKER_MARGIN) for low in (y1, x1))
        bottom, right = (math.ceil(high) + MARKER_MARGIN for high in (y2, x2))
        region = _Region(top, left, min(bottom, height), min(right, width))
        if region.top < region.bottom and region.left < region.right:
            found.append(region)
    return found


def remove_markers_in_place(image: Image, boxes: ArrayLike, how: str) -> None:
    """Do what ``remove_markers`` does to the image itself."""
    regions = [] if how == "off" else _regions(boxes, image.shape)
    if regions and how == "inpaint":
        mask = _drawn(regions, _Region(0, 0, *image.shape))
        inside = mask.astype(bool)
        image[inside] = cv2.inpaint(image, mask, INPAINT_RADIUS, cv2.INPAINT_TELEA)[inside]
    elif regions:
        _fill(image, regions)


def _drawn(regions: Sequence[_Region], window: _Region) -> NDArray[np.uint8]:
    """Return a mask of a window that is 1 in the regions."""
    mask = np.zeros((window.bottom - window.top, window.right - window.left), np.uint8)
    for top, left, bottom, right in regions:
        rows = slice(max(0, top - window.top), max(0, bottom - window.top))
        mask[rows, max(0, left - window.left) : max(0, right - window.left)] = 1
    return mask


def _fill(image: Image, regions: Sequence[_Region]) -> None:
    """Fill each region with the median of the ring around it, in place; touching regions are one.

    One grey per region holds no trace of the letter, and the ring's median is the region's
    surroundings: no dark or bright patch tells the network where a marker was.
    """
    for group in _touching(regions):
        # Only what lies around a marker is looked at: an image has a hundred times as many pixels.
        around = _around(group, image.shape)
        near = _drawn([_around([region], image.shape) for region in group], around)
        ring = near > _drawn(regions, around)
        window = image[around.pixels]
        window[_drawn(group, around) == 1] = _median(window[ring]) if ring.any() else 0


def _median(values: Image) -> int:
    """Return the median, of an even number the mean of the two in the middle, rounded down."""
    ordered = np.sort(values)
    return (int(ordered[(len(ordered) - 1) // 2]) + int(ordered[len(ordered) // 2])) // 2


def _touching(regions: Sequence[_Region]) -> list[list[_Region]]:
    """Return the regions in groups of those that touch, by way of others too."""
    groups: list[list[_Region]] = []
    for region in regions:
        near = [group for group in groups if any(region.touches(other) for other in group)]
        groups = [group for group in groups if group not in near]
        groups.append([region, *chain.from_iterable(near)])
    return groups


def _around(group: Sequence[_Region], shape: tuple[int, ...]) -> _Region:
    """Return the part of the image that holds a group and the ring around it."""
    tops, lefts, bottoms, rights = zip(*group, strict=True)
    return _Region(
        max(0, min(tops) - RING),
        max(0, min(lefts) - RING),
        min(shape[0], max(bottoms) + RING),
        min(shape[1], max(rights) + RING),
    )
