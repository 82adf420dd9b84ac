"""Preprocessing: from an image file to the square that a network takes."""

from pathlib import Path

from numpy.typing import ArrayLike

from pedfrac.config.data import Preparation
from pedfrac.imaging.decoding import Film, decode
from pedfrac.imaging.letterbox import Placement, letterbox
from pedfrac.imaging.markers import remove_markers_in_place


def prepare(
    film: Path | Film, text_boxes: ArrayLike, preparation: Preparation
) -> tuple[Film, Placement]:
    """Return a film (size,size) ready for a network, and where the film lies in it.

    ``film`` is a file or a decoded film (height,width); ``text_boxes`` (n,4) xyxy are its marker
    regions in its own pixels. Raises PedfracError where the file cannot be decoded.
    """
    own = decode(film) if isinstance(film, Path) else film.copy()
    remove_markers_in_place(own, text_boxes, preparation.markers)
    return letterbox(own, preparation.size)
