"""Exif orientation: which way an image is up, and the image turned so.

Orientation 1 to 8 as Exif 2.3 (CIPA DC-008) and TIFF 6.0 define tag 0x0112. Of Exif data nothing
else is read.
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

UPRIGHT = 1
_TAG, _SHORT, _LONG = 0x0112, 3, 4
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}


def orientation_of(exif: bytes) -> int:
    """Return the orientation in Exif data (a TIFF header and its first directory); 1 if none."""
    order = _ORDERS.get(exif[:4])
    try:
        if order is None:
            return UPRIGHT
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, at)
            if tag == _TAG and kind in (_SHORT, _LONG):
                value = struct.unpack_from(order + {_SHORT: "H", _LONG: "I"}[kind], exif, at + 8)[0]
                return value if 1 <= value <= 8 else UPRIGHT
    except struct.error:  # a directory that is cut off
        pass
    return UPRIGHT


def upright(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return stored pixels (height,width[,channels]) the way up that an orientation says."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    # 2, 3: the first column is on the right; 3, 4: the first row is at the bottom; then the turned
    flipped_columns, flipped_rows = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    image = image[:, ::-1] if flipped_columns else image
    image = image[::-1] if flipped_rows else image
    return image if orientation == UPRIGHT else np.ascontiguousarray(image)
