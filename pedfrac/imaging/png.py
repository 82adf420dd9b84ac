"""PNG files: whether one is whole, and the fast exact way to the pixels of most images.

Most images are grey and have every row filtered by the pixel to its left, as OpenCV writes them.
Not here: any other PNG, which OpenCV decodes (decoding).
"""

import struct
from typing import NamedTuple

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LEFT = 1  # the filter "Sub": each byte is the difference to that of the pixel to its left


class PngFault(Exception):
    """Raised for bytes that are not a complete PNG.

    ``kind`` is that of the issue, the message says what was found.
    """

    def __init__(self, kind: str, found: str):
        super().__init__(found)
        self.kind = kind


class Chunk(NamedTuple):
    """One chunk of a PNG: its kind, such as ``IDAT``, and its data."""

    kind: bytes
    data: memoryview


def chunks(data: bytes) -> list[Chunk]:
    """Return the chunks of a file that starts with SIGNATURE, up to its end IEND.

    Raises PngFault where one is cut off or does not match its checksum.
    """
    view, found, at = memoryview(data), [], len(SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if isal_zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise PngFault("image-damaged", f"a damaged {kind!r} chunk at byte {at}")
        found.append(Chunk(kind, view[at + 8 : end - 4]))
        if kind == b"IEND":
            return found
        at = end
    raise PngFault("image-truncated", f"a PNG truncated after {len(data)} bytes")


def high_bytes(parts: list[Chunk]) -> NDArray[np.uint8] | None:
    """Return the high byte of each pixel (height,width) of grey of 8 or 16 bits.

    None where the PNG is of another kind, contains more than pixels, or does not decompress: the
    general decoder then handles it or reports the fault.
    """
    kinds = [part.kind for part in parts]
    if kinds[0] != b"IHDR" or set(kinds[1:-1]) != {b"IDAT"} or len(parts[0].data) != 13:
        return None
    width, height, bits, *others = struct.unpack(">IIBBBBB", parts[0].data)
    if bits not in (8, 16) or any(others) or not width * height:
        return None
    rows = _unpacked(b"".join(part.data for part in parts[1:-1]), height, 1 + width * bits // 8)
    if rows is None or (rows[:, 0] != _LEFT).any():
        return None
    # The filter works on high and low bytes apart, so that the low ones need not be restored.
    return np.add.accumulate(rows[:, 1 :: bits // 8], axis=1, dtype=np.uint8)


def _unpacked(data: bytes, height: int, row: int) -> NDArray[np.uint8] | None:
    """Return the filtered rows (height,row), or None if any is missing or damaged."""
    stream = isal_zlib.decompressobj()
    try:
        # One byte more than there may be, so that the end and its checksum are reached.
        found = stream.decompress(data, height * row + 1)
    except isal_zlib.error:  # type: ignore[misc]  # the stub tells of an instance
        return None
    if not stream.eof or len(found) != height * row:
        return None
    return np.frombuffer(found, np.uint8).reshape(height, row)
