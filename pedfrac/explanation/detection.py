"""Detection: how well scored boxes find the marked fractures, whatever the image's own score.

A marked fracture is found by a box whose middle lies in it, as a reader would take a mark (FROC),
or by one that covers the same place closely enough (average precision). Not here: the boxes
(scoring.finding_boxes) and heat maps (localisation).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pedfrac.explanation.metrics import BoxPointing, Detection
from pedfrac.imaging.boxes import as_boxes
from pedfrac.scoring.finding_boxes import FindingBox
from pedfrac.statistics.intervals import Floats, Interval
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

FALSE_MARKS = (0.1, 0.5)  # on the average image
OVERLAPS = (0.3, 0.5)
NO_BOX = "no image with a fracture box"
NOTE = (
    "Marks are boxes of the generalist's fracture map. FROC: share of marked fractures in which "
    "the middle of a box lies, at the score from which so many other boxes come up on the average "
    "image. Average precision: area under precision over recall, a box being right if it is the "
    "first to share at least so much of its union with a marked fracture. Pointing: share of "
    "images with a marked fracture whose first box has its middle in one; chance as for heat maps. "
    "Intervals: 95 %, over patients."
)
Marks = Sequence[Sequence[FindingBox]]
Truths = Sequence[NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class _Ranked:
    """All marks (m,) of all images, best first, and all marked fractures (t,)."""

    image: NDArray[np.int64]  # of each mark
    false: NDArray[np.bool_]  # its middle lies in no marked fracture
    right: dict[float, NDArray[np.bool_]]  # by least overlap: first to meet a marked fracture
    of_truth: NDArray[np.int64]  # image of each marked fracture
    found_at: NDArray[np.float64]  # rank of the first mark whose middle lies in it; infinity: none

    def sensitivity(self, most: float, weights: Floats) -> Floats:
        """Return the share (r,) of fractures found at ``most`` false marks an image."""
        false = (weights[:, self.image] * self.false).cumsum(axis=1)
        allowed = (false <= most * weights.sum(axis=1, keepdims=True) + 1e-9).sum(axis=1)
        own = weights[:, self.of_truth]
        return _divide((own * (self.found_at < allowed[:, None])).sum(axis=1), own.sum(axis=1))

    def precision(self, least: float, weights: Floats) -> Floats:
        """Return the average precision (r,), precision taken as the best at that recall or more."""
        own, right = weights[:, self.image], self.right[least]
        hits = (own * right).cumsum(axis=1)
        precision = _divide(hits, own.cumsum(axis=1))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        return _divide((own * right * best).sum(axis=1), weights[:, self.of_truth].sum(axis=1))


def detection_metrics(
    marks: Marks, truths: Truths, areas: Floats, bootstrap: PatientBootstrap
) -> Detection:
    """Return FROC, average precision and pointing of the marks (n) of images, as intervals.

    ``truths`` (n): the marked fractures (k, 4) xyxy of each; ``areas`` (n,): the share of the image
    that they cover, which is chance; ``bootstrap`` of the images' patients.
    """
    marked = np.array([len(found) > 0 for found in truths], bool)
    counts = {"images": len(marks), "with_fractures": int(marked.sum())}
    levels_of: dict[str, dict[str, Interval]] = {}
    if not marked.any():
        return Detection(**counts, reason=NO_BOX, note=NOTE)
    ranked, patients = _rank(marks, truths), int(marked.sum())
    for name, metric, levels in (
        ("froc", ranked.sensitivity, FALSE_MARKS),
        ("average_precision", ranked.precision, OVERLAPS),
    ):
        of_level = {level: partial(metric, level) for level in levels}
        levels_of[name] = {
            f"{level:g}": bootstrap.interval(bootstrap.any_metric(one, patients=patients))
            for level, one in of_level.items()
        }
    first = [
        bool(len(m)) and bool(_inside(m[:1], t).any()) for m, t in zip(marks, truths, strict=True)
    ]
    pointing = bootstrap.ratio(np.array(first) & marked, marked, reason=NO_BOX)
    chance = bootstrap.ratio(areas * marked, marked, reason=NO_BOX)
    return Detection(
        **counts,
        froc=levels_of["froc"],
        average_precision=levels_of["average_precision"],
        pointing=BoxPointing(
            marks=bootstrap.interval(pointing),
            chance=bootstrap.interval(chance),
            marks_minus_chance=bootstrap.difference(pointing, chance),
        ),
        note=NOTE,
    )


def _rank(marks: Marks, truths: Truths) -> _Ranked:
    rows: list[tuple[float, int, bool, list[bool]]] = []
    of_truth: list[int] = []
    first: list[float] = []  # the best score of a mark in each fracture
    for image, (own, found) in enumerate(zip(marks, truths, strict=True)):
        inside = _inside(own, found)
        right = [_matched(_overlap(own, found), least) for least in OVERLAPS]
        for at, mark in enumerate(own):
            rows.append((mark.score, image, not inside[at].any(), [one[at] for one in right]))
        of_truth += [image] * len(found)
        scores = np.array([mark.score for mark in own])
        first += [float(scores[hit].max(initial=-1)) for hit in inside.T]
    rows.sort(key=lambda row: -row[0])
    order = np.array([-row[0] for row in rows])
    places = np.searchsorted(order, -np.array(first))
    return _Ranked(
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], bool),
        {least: np.array([row[3][k] for row in rows], bool) for k, least in enumerate(OVERLAPS)},
        np.array(of_truth, np.int64),
        np.where(np.array(first) < 0, np.inf, places),
    )


def _inside(marks: Sequence[FindingBox], truths: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return in which fractures (marks, fractures) the middle of each mark lies."""
    corners, found = _corners(marks), as_boxes(truths)[None]
    x, y = (corners[:, [0]] + corners[:, [2]]) / 2, (corners[:, [1]] + corners[:, [3]]) / 2
    across = (found[..., 0] <= x) & (x <= found[..., 2])
    return np.asarray(across & (found[..., 1] <= y) & (y <= found[..., 3]))


def _overlap(marks: Sequence[FindingBox], truths: NDArray[np.floating]) -> Floats:
    """Return intersection over union (marks, fractures)."""
    one, other = _corners(marks)[:, None], as_boxes(truths)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = sides.clip(0).prod(axis=2)
    areas = [(box[..., 2:] - box[..., :2]).prod(axis=2) for box in (one, other)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-9))


def _matched(overlap: Floats, least: float) -> list[bool]:
    """Return whether each mark, best first, is the first to meet the fracture it meets best."""
    taken: set[int] = set()
    right = []
    for row in overlap:
        free = [k for k in np.argsort(-row) if k not in taken and row[k] >= least]
        taken.update(free[:1])
        right.append(bool(free))
    return right


def _corners(marks: Sequence[FindingBox]) -> Floats:
    return as_boxes([mark.corners for mark in marks])


def _divide(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
