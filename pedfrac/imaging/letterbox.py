"""Letterbox: an image scaled into a square, and coordinates carried along."""

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import ArrayLike

from pedfrac.imaging.boxes import Boxes, as_boxes
from pedfrac.imaging.decoding import Image


@dataclass(frozen=True)
class Placement:
    """Where an image of ``source`` (height, width) lies in its letterbox of side ``size``."""

    scale: float
    dx: int
    dy: int
    size: int
    source: tuple[int, int]

    @classmethod
    def of(cls, height: int, width: int, size: int) -> Self:
        """Return the centred placement that keeps the aspect ratio of an image (height, width)."""
        scale = size / max(height, width)
        inner_h, inner_w = inner_size(height, width, scale)
        return cls(scale, (size - inner_w) // 2, (size - inner_h) // 2, size, (height, width))

    @property
    def inner(self) -> tuple[int, int]:
        """Height and width of the image inside the letterbox, in pixels."""
        return inner_size(*self.source, self.scale)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the letterbox that the image fills."""
        height, width = self.inner
        return slice(self.dy, self.dy + height), slice(self.dx, self.dx + width)

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the image inside the letterbox, in pixels."""
        height, width = self.inner
        return self.dx, self.dy, self.dx + width, self.dy + height

    def apply(self, boxes: ArrayLike) -> Boxes:
        """Return boxes (n,4) xyxy of the image as boxes of the letterbox."""
        return as_boxes(boxes) * self.scale + self._shift

    def invert(self, boxes: ArrayLike) -> Boxes:
        """Return boxes (n,4) xyxy of the letterbox as boxes of the image."""
        return (as_boxes(boxes) - self._shift) / self.scale

    @property
    def _shift(self) -> Boxes:
        return np.array([self.dx, self.dy, self.dx, self.dy], dtype=np.float64)


def letterbox(image: Image, size: int) -> tuple[Image, Placement]:
    """Return an image (height,width) centred in a black square (size,size), aspect kept."""
    placement = Placement.of(image.shape[0], image.shape[1], size)
    height, width = placement.inner
    # Area averages all pixels that fall into one, so that thin lines are not lost to aliasing.
    how = cv2.INTER_AREA if placement.scale < 1 else cv2.INTER_LINEAR
    square = np.zeros((size, size), np.uint8)
    inner = square[placement.dy : placement.dy + height, placement.dx : placement.dx + width]
    inner[:] = cv2.resize(image, (width, height), interpolation=how)
    return square, placement


def inner_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return the scaled height and width in pixels, at least 1."""
    return max(1, round(height * scale)), max(1, round(width * scale))
