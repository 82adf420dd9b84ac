"""Boxes: YOLO fractions and pixel corners."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Boxes = NDArray[np.float64]


def yolo_to_xyxy(boxes: ArrayLike, width: int, height: int) -> Boxes:
    """Return YOLO boxes (n,4), fractions (x centre, y centre, width, height), as xyxy in pixels."""
    xc, yc, w, h = as_boxes(boxes).T
    fractions = np.stack([xc - w / 2, yc - h / 2, xc + w / 2, yc + h / 2], axis=1)
    return fractions * np.array([width, height, width, height], dtype=np.float64)


def as_boxes(boxes: ArrayLike) -> Boxes:
    """Return boxes as a float array (n,4); an empty list is (0,4)."""
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
