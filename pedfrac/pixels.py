"""The one way in for pixels: decode, remove side markers, letterbox; uint8 arrays leave.

Training, evaluation, explanation and prediction all come through ``prepare``. Not here:
normalisation to float and augmentation, which happen on the training device.
"""

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pedfrac import png
from pedfrac.errors import PedfracError

if TYPE_CHECKING:
    from pedfrac.config import Preparation

Film = NDArray[np.uint8]
Boxes = NDArray[np.float64]

# Labels are drawn tight: on real films the letter reaches up to 5 px beyond its box, and the
# shadow of a burnt-in one likewise. At 6 px, 3 of the 18,090 fracture boxes of GRAZPEDWRI-DX
# touch a removed region (2 touch the bare box), none by more than 10 % of its area.
MARKER_MARGIN = 6
RING = 5
INPAINT_RADIUS = 5

_JPEG = b"\xff\xd8\xff"
# In a JPEG scan ff is data when 00 follows, a restart when d0-d7 follow, and padding before ff.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


@dataclass(frozen=True)
class Placement:
    """Where a film of ``source`` (height, width) lies in its square letterbox of side ``size``."""

    scale: float
    dx: int
    dy: int
    size: int
    source: tuple[int, int]

    @classmethod
    def of(cls, height: int, width: int, size: int) -> Self:
        """Return the centred placement that keeps the aspect of a film of so many pixels."""
        scale = size / max(height, width)
        inner_h, inner_w = _inner(height, width, scale)
        return cls(scale, (size - inner_w) // 2, (size - inner_h) // 2, size, (height, width))

    @property
    def inner(self) -> tuple[int, int]:
        """Height and width of the film inside the letterbox, in pixels."""
        return _inner(*self.source, self.scale)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the letterbox that the film fills."""
        height, width = self.inner
        return slice(self.dy, self.dy + height), slice(self.dx, self.dx + width)

    def apply(self, boxes: ArrayLike) -> Boxes:
        """Return boxes (n,4) xyxy of the film as boxes of the letterbox."""
        return as_boxes(boxes) * self.scale + self._shift

    def invert(self, boxes: ArrayLike) -> Boxes:
        """Return boxes (n,4) xyxy of the letterbox as boxes of the film."""
        return (as_boxes(boxes) - self._shift) / self.scale

    @property
    def _shift(self) -> Boxes:
        return np.array([self.dx, self.dy, self.dx, self.dy], dtype=np.float64)


def prepare(
    film: Path | Film, text_boxes: ArrayLike, preparation: "Preparation"
) -> tuple[Film, Placement]:
    """Return a film (size,size) ready for a network, and where the film lies in it.

    ``film`` is a file or a decoded film (height,width); ``text_boxes`` (n,4) xyxy are its marker
    regions in its own pixels. Raises PedfracError where the file cannot be decoded.
    """
    own = decode(film) if isinstance(film, Path) else film.copy()
    _remove_markers(own, text_boxes, preparation.markers)
    return letterbox(own, preparation.size)


def decode(path: Path) -> Film:
    """Return a PNG or JPEG as grey (height,width); raise PedfracError that says what was found."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PedfracError(f"{path}: cannot be read ({error.strerror})") from None
    return decode_bytes(data, str(path))


def decode_bytes(data: bytes, name: str) -> Film:
    """Return the bytes of a PNG or JPEG as grey (height,width); ``name`` is for the error.

    What comes is reduced as ``as_grey`` does. Raises PedfracError for anything else and for files
    that are truncated or damaged.
    """
    # OpenCV returns what it could read of a truncated file with no more than a warning.
    try:
        whole = _checked(data)
    except png.PngFault as fault:
        raise PedfracError(f"{name}: must be a whole PNG or JPEG, found {fault}") from None
    if whole and (film := png.high_bytes(whole)) is not None:
        return film
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise PedfracError(f"{name}: cannot be decoded ({error.err})") from None
    if image is None:
        raise PedfracError(f"{name}: cannot be decoded ({len(data)} bytes)")
    return as_grey(image, name)


def as_grey(image: NDArray[Any], name: str) -> Film:
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


def remove_markers(film: Film, boxes: ArrayLike, how: Literal["fill", "inpaint", "off"]) -> Film:
    """Return a copy of a film (height,width) without its marker regions (n,4) xyxy.

    Boxes are clipped to the film and grown by MARKER_MARGIN; pixels outside them do not change.
    """
    cleaned = film.copy()
    _remove_markers(cleaned, boxes, how)
    return cleaned


def letterbox(film: Film, size: int) -> tuple[Film, Placement]:
    """Return a film (height,width) centred in a black square (size,size), aspect kept."""
    placement = Placement.of(film.shape[0], film.shape[1], size)
    height, width = placement.inner
    # Area averages all pixels that fall into one, so that thin lines are not lost to aliasing.
    how = cv2.INTER_AREA if placement.scale < 1 else cv2.INTER_LINEAR
    square = np.zeros((size, size), np.uint8)
    inner = square[placement.dy : placement.dy + height, placement.dx : placement.dx + width]
    inner[:] = cv2.resize(film, (width, height), interpolation=how)
    return square, placement


def yolo_to_xyxy(boxes: ArrayLike, width: int, height: int) -> Boxes:
    """Return YOLO boxes (n,4), fractions (x centre, y centre, width, height), as xyxy in pixels."""
    xc, yc, w, h = as_boxes(boxes).T
    fractions = np.stack([xc - w / 2, yc - h / 2, xc + w / 2, yc + h / 2], axis=1)
    return fractions * np.array([width, height, width, height], dtype=np.float64)


def as_boxes(boxes: ArrayLike) -> Boxes:
    """Return boxes as a float array (n,4); an empty list is (0,4)."""
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def _inner(height: int, width: int, scale: float) -> tuple[int, int]:
    return max(1, round(height * scale)), max(1, round(width * scale))


class _Region(NamedTuple):
    """A rectangle of pixels; bottom and right are the first that are not in it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def pixels(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def touches(self, other: "_Region") -> bool:
        """Return whether they overlap or have pixels that are neighbours, across a corner too."""
        return (
            self.top <= other.bottom
            and other.top <= self.bottom
            and self.left <= other.right
            and other.left <= self.right
        )


def _regions(boxes: ArrayLike, shape: tuple[int, ...]) -> list[_Region]:
    """Return the pixels of each box, rounded outward, grown by the margin, clipped to the film."""
    height, width = shape
    found = []
    for x1, y1, x2, y2 in as_boxes(boxes):
        top, left = (max(0, math.floor(low) - MARKER_MARGIN) for low in (y1, x1))
        bottom, right = (math.ceil(high) + MARKER_MARGIN for high in (y2, x2))
        region = _Region(top, left, min(bottom, height), min(right, width))
        if region.top < region.bottom and region.left < region.right:
            found.append(region)
    return found


def _remove_markers(film: Film, boxes: ArrayLike, how: str) -> None:
    """Do what ``remove_markers`` does to the film itself."""
    regions = [] if how == "off" else _regions(boxes, film.shape)
    if regions and how == "inpaint":
        mask = _drawn(regions, _Region(0, 0, *film.shape))
        inside = mask.astype(bool)
        film[inside] = cv2.inpaint(film, mask, INPAINT_RADIUS, cv2.INPAINT_TELEA)[inside]
    elif regions:
        _fill(film, regions)


def _drawn(regions: Sequence[_Region], window: _Region) -> NDArray[np.uint8]:
    """Return a mask of a window that is 1 in the regions."""
    mask = np.zeros((window.bottom - window.top, window.right - window.left), np.uint8)
    for top, left, bottom, right in regions:
        rows = slice(max(0, top - window.top), max(0, bottom - window.top))
        mask[rows, max(0, left - window.left) : max(0, right - window.left)] = 1
    return mask


def _fill(film: Film, regions: Sequence[_Region]) -> None:
    """Give the regions, those that touch as one, the median of the ring around, in place.

    One grey per region holds no trace of the letter, and the ring's median is the region's
    surroundings: no dark or bright patch tells the network where a marker was.
    """
    for group in _touching(regions):
        # Only what lies around a marker is looked at: a film has a hundred times as many pixels.
        around = _around(group, film.shape)
        near = _drawn([_around([region], film.shape) for region in group], around)
        ring = near > _drawn(regions, around)
        window = film[around.pixels]
        window[_drawn(group, around) == 1] = _median(window[ring]) if ring.any() else 0


def _median(values: Film) -> int:
    """Return the median, of an even number the mean of the two in the middle, rounded down."""
    ordered = np.sort(values)
    return (int(ordered[(len(ordered) - 1) // 2]) + int(ordered[len(ordered) // 2])) // 2


def _touching(regions: Sequence[_Region]) -> list[list[_Region]]:
    """Return the regions in groups of those that touch, by way of others too."""
    groups: list[list[_Region]] = []
    for region in regions:
        near = [group for group in groups if any(region.touches(other) for other in group)]
        groups = [group for group in groups if group not in near]
        groups.append([region, *chain.from_iterable(near)])
    return groups


def _around(group: Sequence[_Region], shape: tuple[int, ...]) -> _Region:
    """Return the part of the film that holds a group and the ring around it."""
    tops, lefts, bottoms, rights = zip(*group, strict=True)
    return _Region(
        max(0, min(tops) - RING),
        max(0, min(lefts) - RING),
        min(shape[0], max(bottoms) + RING),
        min(shape[1], max(rights) + RING),
    )


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
