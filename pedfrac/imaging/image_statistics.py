"""Image statistics: numbers of a prepared image that depend on how it was acquired.

A change of scanner, exposure or processing changes them. They are compared in monitoring.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from pedfrac.imaging.letterbox import Placement

Floats = NDArray[np.float64]
STATISTICS = ("brightness", "contrast", "background", "sharpness", "noise", "long_side", "aspect")
BACKGROUND = 16  # grey of 255 below which a pixel shows neither bone nor soft tissue
FINE, COARSE = 1.0, 4.0  # standard deviations of the blurs that part fine from coarse detail
_LAPLACE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_LOWER_HALF = 0.3246  # mean of the lower half of |z|, z standard normal
_TINY = 1e-3  # of 255: below what eight bits resolve


def image_statistics(image: NDArray[np.uint8], shape: tuple[int, int]) -> Floats:
    """Return the STATISTICS (7,) of an image prepared (size,size) from ``shape``, (height,width).

    Only the image inside its letterbox counts. brightness: mean of the image without background;
    contrast: standard deviation of the same; background: share of pixels that show nothing, all in
    0…1. sharpness: log10 of fine over coarse detail (bands of a Laplacian pyramid), which contrast
    does not move. noise: standard deviation as Immerkær has it (CVIU 1996), in grey levels of 255,
    from the smoother half of the image so that edges count little. long_side in pixels of the image
    as it came and aspect, width over height.
    """
    placed = Placement.of(*shape, image.shape[0])
    height, width = placed.inner
    inner = image[placed.dy : placed.dy + height, placed.dx : placed.dx + width].astype(np.float32)
    seen = inner >= BACKGROUND
    body = inner[seen] if seen.any() else inner.ravel()
    return np.array(
        [
            body.mean() / 255,
            body.std() / 255,
            1 - seen.mean(),
            _sharpness(inner),
            _noise(inner, seen),
            max(shape),
            shape[1] / shape[0],
        ],
        np.float64,
    )


def _sharpness(image: NDArray[np.float32]) -> float:
    fine, coarse = (cv2.GaussianBlur(image, (0, 0), sigma) for sigma in (FINE, COARSE))
    details = ((image - fine).std() + _TINY, (fine - coarse).std() + _TINY)
    return float(np.log10(details[0] / details[1]))


def _noise(image: NDArray[np.float32], seen: NDArray[np.bool_]) -> float:
    found = np.abs(cv2.filter2D(image, -1, _LAPLACE))[seen]
    if not len(found):
        return 0.0
    lower = np.partition(found, len(found) // 2)[: len(found) // 2 + 1]
    return float(lower.mean() / (6 * _LOWER_HALF))
