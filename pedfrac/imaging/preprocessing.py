"""Preprocessing: from an image file to the square that a network takes."""

from pathlib import Path

from numpy.typing import ArrayLike

from pedfrac.config.data import Preparation
from pedfrac.imaging.content import refuse_empty
from pedfrac.imaging.decoding import Image, decode
from pedfrac.imaging.letterbox import Placement, letterbox
from pedfrac.imaging.markers import remove_markers_in_place


def prepare(
    image: Path | Image, text_boxes: ArrayLike, preparation: Preparation, name: str = "image"
) -> tuple[Image, Placement]:
    """Return an image (size,size) ready for a network, and where the image lies in it.

    ``image`` is a file or a decoded image (height,width); ``text_boxes`` (n,4) xyxy are its marker
    regions in its own pixels. Raises PedfracError where the file cannot be decoded or shows
    nothing; ``name`` is what it calls a decoded image.
    """
    own = decode(image) if isinstance(image, Path) else image.copy()
    refuse_empty(own, str(image) if isinstance(image, Path) else name)
    remove_markers_in_place(own, text_boxes, preparation.markers)
    return letterbox(own, preparation.size)
