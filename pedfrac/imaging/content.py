"""Whether an image shows anything: too small, all alike, or of too few grey levels.

The same for PNG, JPEG and DICOM, in the records, in training and in prediction. Not here: what it
shows; a photograph of a cat has content.
"""

import numpy as np
from numpy.typing import NDArray

from pedfrac.errors import PedfracError
from pedfrac.imaging.image_file import ImageFault

MIN_SIDE = 32  # pixels; images of GRAZPEDWRI-DX have at least 248
MIN_SPREAD = 32  # grey levels of 256 between percentiles 1 and 99; real radiographs have 90 or more
MIN_LEVELS = 16  # different grey levels of 256; a radiograph has them nearly all
_SAMPLE = 1 << 16  # pixels that are looked at, on a regular grid


def refuse_empty(image: NDArray[np.uint8], name: str) -> None:
    """Raise PedfracError where an image (height,width) shows nothing; ``name`` is for the error."""
    try:
        check_content(image)
    except ImageFault as fault:
        raise PedfracError(f"{name}: {fault.reason}") from None


def check_content(image: NDArray[np.uint8]) -> None:
    """Raise ImageFault where an image (height,width) is tiny or its pixels are nearly alike."""
    height, width = image.shape
    check_size(height, width)
    step = max(1, int((height * width / _SAMPLE) ** 0.5))
    counts = np.bincount(image[::step, ::step].ravel(), minlength=256)
    share = np.cumsum(counts) / counts.sum()
    low, high = np.searchsorted(share, 0.01), np.searchsorted(share, 0.99)
    if high - low < MIN_SPREAD:
        raise ImageFault(
            "image-empty",
            f"the image shows nothing: 98 % of its pixels lie within {high - low + 1} of 256 grey "
            f"levels, from {low} to {high}",
        )
    if (levels := np.count_nonzero(counts)) < MIN_LEVELS:
        raise ImageFault(
            "image-empty",
            f"the image shows nothing: it holds {levels} of 256 grey levels; at least "
            f"{MIN_LEVELS} are needed",
        )


def check_size(height: int, width: int) -> None:
    """Raise ImageFault where an image is smaller than any radiograph."""
    if min(height, width) < MIN_SIDE:
        raise ImageFault(
            "image-too-small", f"{width} x {height} pixels; each side must have {MIN_SIDE} or more"
        )
