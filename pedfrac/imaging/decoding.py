"""Decoding: PNG and JPEG to 8-bit greyscale."""

import re
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pedfrac.errors import PedfracError
from pedfrac.imaging import png

Image = NDArray[np.uint8]
_JPEG = b"\xff\xd8\xff"

# In a JPEG scan ff is data when 00 follows, a restart when d0-d7 follow, and padding before ff.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def decode(path: Path) -> Image:
    """Return a PNG or JPEG as grey (height,width); raise PedfracError that says what was found."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PedfracError(f"{path}: cannot be read ({error.strerror})") from None
    return decode_bytes(data, str(path))


def decode_bytes(data: bytes, name: str) -> Image:
    """Return the bytes of a PNG or JPEG as grey (height,width); ``name`` is for the error.

    What comes is reduced as ``as_grey`` does. Raises PedfracError for anything else and for files
    that are truncated or damaged.
    """
    # OpenCV returns what it could read of a truncated file with no more than a warning.
    try:
        whole = _checked(data)
    except png.PngFault as fault:
        raise PedfracError(f"{name}: must be a whole PNG or JPEG, found {fault}") from None
    if whole and (high := png.high_bytes(whole)) is not None:
        return high
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise PedfracError(f"{name}: cannot be decoded ({error.err})") from None
    if image is None:
        raise PedfracError(f"{name}: cannot be decoded ({len(data)} bytes)")
    return as_grey(image, name)


def as_grey(image: NDArray[Any], name: str) -> Image:
    """Return a decoded picture (height,width[,channels]) of 8 or 16 bits as grey (height,width).

    16 bits are reduced as ``value >> 8``, colour (blue first) to luminance, alpha is ignored.
    ``name`` is for the PedfracError where the picture is of any other kind.
    """
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)  # the high byte: exact, and nothing clips
    if image.dtype != np.uint8:
        raise PedfracError(f"{name}: must have 8 or 16 bits, found {image.dtype}")
    if image.ndim == 2:
        return image
    codes = {3: cv2.COLOR_BGR2GRAY, 4: cv2.COLOR_BGRA2GRAY}
    if image.shape[2] not in codes:
        raise PedfracError(f"{name}: must have 1, 3 or 4 channels, found {image.shape[2]}")
    return cv2.cvtColor(image, codes[image.shape[2]])


def _checked(data: bytes) -> list[png.Chunk]:
    """Return the chunks of a PNG, none of a JPEG; raise PngFault that says what else was found."""
    if data.startswith(png.SIGNATURE):
        return png.chunks(data)
    if not data.startswith(_JPEG):
        raise png.PngFault(f"a file that starts with {data[:8]!r}" if data else "an empty file")
    if fault := _jpeg_fault(data):
        raise png.PngFault(fault)
    return []


def _jpeg_fault(data: bytes) -> str | None:
    """Walk the segments of a JPEG to its end marker (thumbnails have end markers of their own)."""
    at = 2
    while marker := _JPEG_MARKER.search(data, at):
        if marker[0] == b"\xff\xd9":
            return None
        if marker.end() + 2 > len(data):
            break
        at = marker.end() + struct.unpack_from(">H", data, marker.end())[0]
    return f"a JPEG truncated after {len(data)} bytes"
