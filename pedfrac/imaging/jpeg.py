"""JPEG files: whether one is whole, the size of its picture, and its Exif data.

Not here: decoding, which is OpenCV's.
"""

import re
from typing import NamedTuple

SIGNATURE = b"\xff\xd8\xff"

# In a JPEG scan ff is data when 00 follows, a restart when d0-d7 follow, and padding before ff.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_END, _EXIF = 0xD9, 0xE1
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # all but tables of codes and an extension
_EXIF_NAME = b"Exif\0\0"


class JpegFault(Exception):
    """Bytes that are no whole JPEG: kind of issue; the message says what was found."""

    def __init__(self, kind: str, found: str):
        super().__init__(found)
        self.kind = kind


class Frame(NamedTuple):
    """Size in pixels as stored, components (1: grey) and Exif data, empty where there are none."""

    width: int
    height: int
    components: int
    exif: bytes


def read_frame(data: bytes) -> Frame:
    """Walk the segments of a JPEG to its end marker (thumbnails have end markers of their own).

    Raises JpegFault where the end is missing, or there is no frame before it.
    """
    at, exif = 2, b""
    size: tuple[int, int, int] | None = None
    while marker := _MARKER.search(data, at):
        kind, start = marker[0][1], marker.end()
        if kind == _END:
            if size is None:
                raise JpegFault("image-damaged", "a JPEG without a picture")
            return Frame(*size, exif)
        if start + 2 > len(data):
            break
        at = start + int.from_bytes(data[start : start + 2], "big")
        if kind in _FRAMES and size is None and at <= len(data):
            height, width = (int.from_bytes(data[start + k : start + k + 2], "big") for k in (3, 5))
            size = width, height, data[start + 7]
        if kind == _EXIF and data.startswith(_EXIF_NAME, start + 2):
            exif = exif or data[start + 2 + len(_EXIF_NAME) : at]
    raise JpegFault("image-truncated", f"a JPEG truncated after {len(data)} bytes")
