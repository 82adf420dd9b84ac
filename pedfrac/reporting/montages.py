"""Montages: the heat maps of an age group as one picture that a page has room for.

Not here: how heat maps are made (explanation).
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pedfrac.errors import PedfracError
from pedfrac.reporting.plots import data_uri

MONTAGE_BYTES = 5_000_000  # for all montages of a page together
WIDTHS = (2000, 1400, 1000, 700)
QUALITIES = (85, 70, 55)


def fit_montages(paths: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return ``uri``, ``width`` and ``height`` of each montage, all within MONTAGE_BYTES.

    Raises PedfracError that names a montage which cannot be read.
    """
    budget = MONTAGE_BYTES // max(len(paths), 1)
    return {name: _fit(path, budget) for name, path in paths.items()}


def _fit(path: Path, budget: int) -> dict[str, Any]:
    """Return a montage as the best JPEG that keeps within a budget of bytes, or the smallest."""
    pixels = cv2.imread(str(path))
    if pixels is None:
        raise PedfracError(f"{path}: cannot be read as an image; it must be a PNG")
    for width, quality in product(WIDTHS, QUALITIES):
        small = _narrowed(pixels, width)
        _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if encoded.nbytes <= budget:
            break
    uri = data_uri(encoded.tobytes(), "image/jpeg")
    return {"uri": uri, "width": small.shape[1], "height": small.shape[0]}


def _narrowed(pixels: np.ndarray, width: int) -> np.ndarray:
    scale = width / pixels.shape[1]
    if scale >= 1:
        return pixels
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
