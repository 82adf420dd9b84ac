"""Shortcuts: can a network tell fractures where no bone is to be seen?

Images are scored with the wrist hidden and with nothing but what is left where side markers were.
Not here: the removal of markers (pixels) and what disturbs an image that stays whole (robustness).
"""

from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, Field

from pedfrac.config.evaluation import IntervalConfig
from pedfrac.evaluation.robustness import Images, Score, image_window, scores_of
from pedfrac.imaging.boxes import as_boxes
from pedfrac.statistics.intervals import Interval
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.statistics.result import Result

Mask = NDArray[np.bool_]
Verdict = Literal["suspected", "not shown", "unknown"]

# Shares of the shorter side of the image. Found by eye on real and synthetic images.
SMOOTH = 1 / 60  # blur before the threshold: grain makes no islands
RIM = 0.04  # what is thinner than twice this is no wrist but the bright edge of the image
GROWTH = 0.05  # how far the region reaches over the skin, which is darker than what lies below
TISSUE = 0.8  # share of Otsu's threshold: between air and soft tissue rather than in the tissue
PLAUSIBLE = (0.1, 0.98)  # share of the image that a wrist region may have
CENTRE = 0.7  # of each side of the image, where no region is found
MARKER_GROWTH = 0.01  # of the letterbox: markers are removed with a margin, so it is kept too
NOTE = (
    "Bones hidden: the wrist region is filled with the image's background. It is found in the "
    "image "
    f"itself: pixels brighter than {TISSUE:.0%} of Otsu's threshold, without thin rims, of which "
    f"the largest connected piece is grown by {GROWTH:.0%} of the shorter side; the middle of "
    "the image where that finds nothing plausible. Its outline and the image's shape remain, and "
    "with them something of age, view and swelling. Marker region only: nothing but the regions "
    "of side markers and other burnt-in text is kept, as the network sees them, all else is filled "
    "with the image's background; images without such a region are even. A shortcut is suspected "
    "where the AUROC is above .5 with its whole 95 % interval: then the network tells without "
    "bones. Metadata alone may tell too: compare with that baseline."
)


class Boneless(Result):
    """What a network tells of images without bones; reason: why that is unknown."""

    images: int
    auroc: Interval
    verdict: Verdict
    reason: str | None = None


class HiddenBones(Boneless):
    """The same of images whose wrist is filled; region_found: those whose wrist was found."""

    region_found: int


class MarkersOnly(Boneless):
    """The same of side markers and burnt-in text alone; with_region: images that have such."""

    with_region: int


class Shortcuts(Result):
    """What a network tells of images with the bones hidden, and of side markers alone."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)
    images: int
    patients: int
    fractured: int
    bones_hidden: HiddenBones = Field(
        validation_alias="bones hidden", serialization_alias="bones hidden"
    )
    marker_region_only: MarkersOnly = Field(
        validation_alias="marker region only", serialization_alias="marker region only"
    )
    verdict: Verdict
    note: str

    @property
    def parts(self) -> dict[str, Boneless]:
        """Each kind of images without bones, by its name."""
        return {"bones hidden": self.bones_hidden, "marker region only": self.marker_region_only}


def wrist_region(image: Images) -> tuple[Mask, bool]:
    """Return where in an image (S,S) the wrist is, and whether it was found (else: the middle).

    Otsu's threshold (IEEE Trans SMC 1979) on the smoothed image, lowered to lie between air and
    soft tissue; opened, so that the bright rim of an image is no part of it; the largest connected
    piece, grown.
    """
    window = image_window(image)
    region = np.zeros(image.shape, bool)
    if not window.any():
        return region, False
    rows, columns = (np.flatnonzero(window.any(axis=axis)) for axis in (1, 0))
    inner = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    region[inner] = _largest_bright_piece(image[inner])
    low, high = PLAUSIBLE
    if low <= region[inner].mean() <= high:
        return region, True
    region[inner] = _middle(image[inner].shape)
    return region, False


def hide_bones(image: Images) -> tuple[Images, bool]:
    """Return an image (S,S) whose wrist is filled with its background, and whether it was found."""
    region, found = wrist_region(image)
    return np.where(region, background(image, region), image).astype(np.uint8), found


def keep_markers(image: Images, boxes: ArrayLike) -> Images:
    """Return an image (S,S) of which only the regions of boxes (k,4) xyxy are kept.

    They hold bone only where a box lies over one. All else is the image's background, the bars of
    the letterbox too: their width would tell of the image's shape.
    """
    region, _ = wrist_region(image)
    margin = MARKER_GROWTH * image.shape[0]
    kept = np.zeros(image.shape, bool)
    for x1, y1, x2, y2 in as_boxes(boxes):
        top, left = (max(0, int(np.floor(low - margin))) for low in (y1, x1))
        bottom, right = (max(0, int(np.ceil(high + margin))) for high in (y2, x2))
        kept[top:bottom, left:right] = True
    kept &= image_window(image)
    return np.where(kept, image, background(image, region)).astype(np.uint8)


def background(image: Images, region: Mask) -> int:
    """Return the median grey of the image beside a region, 0 where nothing of it is left."""
    beside = image[image_window(image) & ~region]
    return int(np.median(beside)) if beside.size else 0


def shortcut_metrics(
    score: Score,
    images: Images,
    boxes: Sequence[ArrayLike],
    truth: ArrayLike,
    patients: ArrayLike,
    evaluation: IntervalConfig,
) -> Shortcuts:
    """Return what a network tells of images (n,S,S) without bones, and whether that is suspicious.

    ``score`` gives the probability (n,) of a fracture of all n images in their order. ``boxes``: of
    each image its text boxes (k,4) xyxy in its pixels. ``truth`` and ``patients`` (n,);
    ``evaluation`` says how intervals are made. Raises PedfracError where a score is no number.
    """
    truth = np.asarray(truth, bool)
    bootstrap = PatientBootstrap(patients, evaluation.resamples, evaluation.seed)
    hidden = [hide_bones(image) for image in images]
    markers = [keep_markers(image, own) for image, own in zip(images, boxes, strict=True)]

    def part(name: str, made: Sequence[Images]) -> dict[str, Any]:
        shown = np.stack(made) if made else np.empty_like(images)
        area = bootstrap.auroc_interval(truth, scores_of(score, shown, name))
        reason = None if area.bounds else area.reason
        return {"images": len(images), "auroc": area, "verdict": verdict(area), "reason": reason}

    found = sum(found for _, found in hidden)
    bones = HiddenBones(**part("bones hidden", [image for image, _ in hidden]), region_found=found)
    with_region = sum(len(as_boxes(own)) > 0 for own in boxes)
    texts = MarkersOnly(**part("marker region only", markers), with_region=with_region)
    return Shortcuts(
        images=len(images),
        patients=bootstrap.count,
        fractured=int(truth.sum()),
        bones_hidden=bones,
        marker_region_only=texts,
        verdict=_overall([bones.verdict, texts.verdict]),
        note=NOTE,
    )


def verdict(area: Interval) -> Verdict:
    """Return the verdict on an area under the ROC curve of images without bones.

    ``suspected`` with its whole interval above one half, ``unknown`` without an interval, else
    ``not shown``, which is no proof that there is none.
    """
    if not area.bounds:
        return "unknown"
    return "suspected" if area.is_above(0.5) else "not shown"


def _overall(verdicts: Sequence[Verdict]) -> Verdict:
    gravest: tuple[Verdict, ...] = ("suspected", "unknown")
    return next((one for one in gravest if one in verdicts), "not shown")


def _largest_bright_piece(image: Images) -> Mask:
    side = min(image.shape)
    smooth = cv2.GaussianBlur(image, (0, 0), max(side * SMOOTH, 0.5))
    limit, _ = cv2.threshold(smooth, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = (smooth > limit * TISSUE).astype(np.uint8)
    # Beside the image it counts as dark, so that opening takes its rims away.
    opened = cv2.morphologyEx(
        bright, cv2.MORPH_OPEN, _disc(side * RIM), borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    count, pieces, sizes, _ = cv2.connectedComponentsWithStats(opened)
    if count < 2:
        return np.zeros(image.shape, bool)
    largest = pieces == 1 + sizes[1:, cv2.CC_STAT_AREA].argmax()
    return cv2.dilate(largest.astype(np.uint8), _disc(side * GROWTH)) > 0


def _disc(radius: float) -> Images:
    side = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _middle(shape: tuple[int, ...]) -> Mask:
    rows, columns = (np.abs((np.arange(n) + 0.5) / n - 0.5) < CENTRE / 2 for n in shape)
    return np.logical_and.outer(rows, columns)
