"""What a PNG or JPEG says before it is decoded: whether it is whole, its size, which way it is up.

One reading for the records, training and prediction. Not here: pixels (decoding, content).
"""

from dataclasses import dataclass, field

from pedfrac.imaging import jpeg, png
from pedfrac.imaging.exif import orientation_of

MAX_PIXELS = 50_000_000  # of an image; the largest detectors have about 15 million
_TURNED = (5, 6, 7, 8)  # orientations whose rows are the columns of what is stored
_COLOURED = (2, 3, 6)  # colour types of PNG: true colour, palette, true colour with alpha


class ImageFault(Exception):
    """An image file that cannot be used: kind of issue, and the reason in words."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


@dataclass(frozen=True)
class ImageHeader:
    """What the header of a whole image file says.

    ``width`` and ``height`` in pixels as the image is meant to be seen, ``orientation`` is Exif's
    (1 to 8; 1: as stored), ``bits`` are those of a sample. ``chunks`` are those of a PNG, none of
    a JPEG.
    """

    width: int
    height: int
    orientation: int
    coloured: bool
    bits: int
    chunks: list[png.Chunk] = field(default_factory=list, repr=False)


def read_header(data: bytes) -> ImageHeader:
    """Return what a PNG or JPEG says of itself; nothing is decoded.

    Raises ImageFault where the bytes are neither, are cut off or damaged, or hold more pixels than
    MAX_PIXELS. Bytes after the end of the image do not matter.
    """
    if data.startswith(png.SIGNATURE):
        return _png_header(data)
    if data.startswith(jpeg.SIGNATURE):
        return _jpeg_header(data)
    found = f"a file that starts with {data[:8]!r}" if data else "an empty file"
    raise ImageFault("image-unreadable", f"must be a whole PNG or JPEG, found {found}")


def _png_header(data: bytes) -> ImageHeader:
    try:
        chunks = png.chunks(data)
    except png.PngFault as fault:
        raise ImageFault(fault.kind, f"must be a whole PNG or JPEG, found {fault}") from None
    first = chunks[0]
    if first.kind != b"IHDR" or len(first.data) != 13:
        raise ImageFault("image-damaged", "has no valid PNG header")
    width, height = (int.from_bytes(first.data[at : at + 4], "big") for at in (0, 4))
    if all(chunk.kind != b"IDAT" for chunk in chunks):
        raise ImageFault("image-damaged", "holds no pixels")
    exif = next((bytes(chunk.data) for chunk in chunks if chunk.kind == b"eXIf"), b"")
    bits, colours = first.data[8], first.data[9]
    return _header(width, height, orientation_of(exif), colours in _COLOURED, bits, chunks)


def _jpeg_header(data: bytes) -> ImageHeader:
    try:
        frame = jpeg.read_frame(data)
    except jpeg.JpegFault as fault:
        raise ImageFault(fault.kind, f"must be a whole PNG or JPEG, found {fault}") from None
    coloured = frame.components > 1
    return _header(frame.width, frame.height, orientation_of(frame.exif), coloured, 8, [])


def _header(
    width: int, height: int, orientation: int, coloured: bool, bits: int, chunks: list[png.Chunk]
) -> ImageHeader:
    if not width * height:
        raise ImageFault("image-damaged", f"has {width} x {height} pixels by its header")
    if width * height > MAX_PIXELS:
        raise ImageFault(
            "image-too-large", f"{width} x {height} pixels; at most {MAX_PIXELS:,} are read"
        )
    if orientation in _TURNED:
        width, height = height, width
    return ImageHeader(width, height, orientation, coloured, bits, chunks)
