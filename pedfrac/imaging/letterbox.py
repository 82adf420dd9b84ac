"""Letterbox: an image scaled into a square, and coordinates carried along."""

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import ArrayLike

from pedfrac.imaging.boxes import Boxes, as_boxes
from pedfrac.imaging.decoding import Film


@dataclass(frozen=True)
class Placement:
    """Where a film of ``source`` (height, width) lies in its square letterbox of side ``size``."""

    scale: float
    dx: int
    dy: int
    size: int
    source: tuple[int, int]

    @classmethod
    def of(cls, height: int, width: int, size: int) -> Self:
        """Return the centred placement that keeps the aspect of a film of so many pixels."""
        scale = size / max(height, width)
        inner_h, inner_w = inner_size(height, width, scale)
        return cls(scale, (size - inner_w) // 2, (size - inner_h) // 2, size, (height, width))

    @property
    def inner(self) -> tuple[int, int]:
        """Height and width of the film inside the letterbox, in pixels."""
        return inner_size(*self.source, self.scale)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the letterbox that the film fills."""
        height, width = self.inner
        return slice(self.dy, self.dy + height), slice(self.dx, self.dx + width)

    def apply(self, boxes: ArrayLike) -> Boxes:
        """Return boxes (n,4) xyxy of the film as boxes of the letterbox."""
        return as_boxes(boxes) * self.scale + self._shift

    def invert(self, boxes: ArrayLike) -> Boxes:
        """Return boxes (n,4) xyxy of the letterbox as boxes of the film."""
        return (as_boxes(boxes) - self._shift) / self.scale

    @property
    def _shift(self) -> Boxes:
        return np.array([self.dx, self.dy, self.dx, self.dy], dtype=np.float64)


def letterbox(film: Film, size: int) -> tuple[Film, Placement]:
    """Return a film (height,width) centred in a black square (size,size), aspect kept."""
    placement = Placement.of(film.shape[0], film.shape[1], size)
    height, width = placement.inner
    # Area averages all pixels that fall into one, so that thin lines are not lost to aliasing.
    how = cv2.INTER_AREA if placement.scale < 1 else cv2.INTER_LINEAR
    square = np.zeros((size, size), np.uint8)
    inner = square[placement.dy : placement.dy + height, placement.dx : placement.dx + width]
    inner[:] = cv2.resize(film, (width, height), interpolation=how)
    return square, placement


def inner_size(height: int, width: int, scale: float) -> tuple[int, int]:
    return max(1, round(height * scale)), max(1, round(width * scale))
