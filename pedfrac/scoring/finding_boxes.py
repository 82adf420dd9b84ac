"""Finding boxes: a map of probabilities as scored boxes, one for each place that stands out.

Not here: the map (models.finding_maps) and how well boxes meet marked findings
(explanation.detection).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FINER = 4  # times the cells of a map, along each side, at which regions are cut out
FLOOR = 0.05  # least probability of a place that becomes a box
EDGE = 0.5  # share of a place's probability from which its surroundings belong to it
MOST = 8  # boxes of one image


@dataclass(frozen=True)
class FindingBox:
    """A box, left, top, right, bottom in pixels, and the highest probability in it."""

    x1: float
    y1: float
    x2: float
    y2: float
    score: float

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        return self.x1, self.y1, self.x2, self.y2


def boxes_of_map(
    probabilities: NDArray[np.float32],
    size: tuple[int, int],
    window: tuple[int, int, int, int] | None = None,
) -> list[FindingBox]:
    """Return the boxes of a map (h, w) of an image of ``size`` (height, width), best first.

    From the most probable place on, each place takes the pixels around it that reach EDGE of its
    probability; the next is the most probable one that stands out from its neighbours and was not
    taken. ``window`` xyxy is where the image lies
    in its letterbox: what lies beside it is no finding.
    """
    height, width = size
    rows, columns = probabilities.shape[0] * FINER, probabilities.shape[1] * FINER
    heat = cv2.resize(
        np.asarray(probabilities, np.float32), (columns, rows), interpolation=cv2.INTER_LINEAR
    )
    across, down = width / columns, height / rows
    if window is not None:
        heat = _within(heat, window, across, down)
    around = np.ones((2 * FINER + 1,) * 2, np.uint8)
    peaks = np.where(heat == cv2.dilate(heat, around), heat, 0)
    found = []
    for _ in range(MOST):
        peak = np.unravel_index(int(peaks.argmax()), heat.shape)
        score = float(peaks[peak])
        if score < FLOOR:
            break
        _, regions = cv2.connectedComponents((heat >= EDGE * score).astype(np.uint8))
        region = regions == regions[peak]
        ys, xs = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
        left, right = float(xs[0] * across), float((xs[-1] + 1) * across)
        top, bottom = float(ys[0] * down), float((ys[-1] + 1) * down)
        found.append(FindingBox(left, top, right, bottom, score))
        peaks[cv2.dilate(region.astype(np.uint8), around) > 0] = 0
    return found


def _within(
    heat: NDArray[np.float32], window: tuple[int, int, int, int], across: float, down: float
) -> NDArray[np.float32]:
    """Return a map with nothing beside the window, by the middles of its pixels."""
    left, top, right, bottom = window
    x = (np.arange(heat.shape[1]) + 0.5) * across
    y = (np.arange(heat.shape[0]) + 0.5) * down
    inside = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))
    return np.where(inside, heat, np.float32(0))
