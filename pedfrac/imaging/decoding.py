"""Decoding: PNG and JPEG to 8-bit greyscale."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pedfrac.errors import PedfracError
from pedfrac.imaging import png
from pedfrac.imaging.exif import upright
from pedfrac.imaging.image_file import ImageFault, ImageHeader, read_header

Image = NDArray[np.uint8]
TINT = 0.1  # of the range by which the channels of a grey pixel may differ, as JPEG has them do
_HALF_OF_RANGE = 32767
COLOURED = 0.01  # share of pixels that may be coloured, as a letter that was drawn in


def decode(path: Path) -> Image:
    """Return a PNG or JPEG as grey (height,width); raise PedfracError that says what was found."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PedfracError(f"{path}: cannot be read ({error.strerror})") from None
    return decode_bytes(data, str(path))


def decode_bytes(data: bytes, name: str) -> Image:
    """Return what ``decode_whole`` does; raise PedfracError, which ``name`` begins."""
    try:
        return decode_whole(data, read_header(data))
    except ImageFault as fault:
        raise PedfracError(f"{name}: {fault.reason}") from None


def decode_whole(data: bytes, header: ImageHeader) -> Image:
    """Return the bytes of a PNG or JPEG as grey (height,width), the right way up.

    What comes is turned as its Exif orientation says and reduced as ``as_grey`` does. Raises
    ImageFault where it cannot be decoded or is in colour.
    """
    high = png.high_bytes(header.chunks) if header.chunks else None
    if high is not None and (header.bits == 8 or int(high.max()) - int(high.min()) > 128):
        return high  # more than half of the range of 16 bits, whatever their low bytes are
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageFault("image-damaged", f"cannot be decoded ({error.err})") from None
    if image is None:
        raise ImageFault("image-damaged", f"cannot be decoded ({len(data)} bytes)")
    return as_grey(upright(image, header.orientation))


def as_grey(image: NDArray[Any]) -> Image:
    """Return a decoded picture (height,width[,channels]) of 8 or 16 bits as grey (height,width).

    Colour (blue first) of which no more than COLOURED of the pixels are coloured becomes luminance;
    alpha is ignored. 8 bits keep their values. Of 16 bits the high byte is kept; a picture that
    uses less than half of their range, as 12 bits in a file of 16, is first stretched from its
    darkest to its brightest pixel. Raises ImageFault where the picture is of any other kind.
    """
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageFault("image-unreadable", f"must have 8 or 16 bits, found {image.dtype}")
    if image.ndim == 3:
        image = _luminance(image)
    return _in_8_bits(image)


def _in_8_bits(image: NDArray[Any]) -> Image:
    """Return grey of 8 or 16 bits in 8; of 16, stretched where less than half the range is used."""
    if image.dtype == np.uint8:
        return image
    low, high = int(image.min()), int(image.max())
    if 0 < high - low <= _HALF_OF_RANGE:
        stretched = (image.astype(np.float64) - low) * (65535 / (high - low))
        image = np.rint(stretched).astype(np.uint16)
    return (image >> 8).astype(np.uint8)  # the high byte: exact, and nothing clips


def _luminance(image: NDArray[Any]) -> NDArray[Any]:
    """Return the grey of a picture in colour channels; refuse one that is in colour."""
    codes = {3: cv2.COLOR_BGR2GRAY, 4: cv2.COLOR_BGRA2GRAY}
    if image.shape[2] not in codes:
        found = f"must have 1, 3 or 4 channels, found {image.shape[2]}"
        raise ImageFault("image-unreadable", found)
    channels = image[:, :, :3]
    apart = channels.max(axis=2) - channels.min(axis=2)
    coloured = float((apart > np.iinfo(image.dtype).max * TINT).mean())
    if coloured > COLOURED:
        raise ImageFault(
            "image-colour",
            f"is a picture in colour ({coloured:.0%} of its pixels are coloured); allowed are grey "
            f"radiographs, with colour in at most {COLOURED:.0%} of the pixels",
        )
    return cv2.cvtColor(image, codes[image.shape[2]])
