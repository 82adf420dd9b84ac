"""Localisation: how well heat maps meet the fracture boxes, beside chance and a centre prior.

Not here: the maps themselves (heat_maps).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pedfrac.explanation.metrics import LocalisationMetrics, MapMetric
from pedfrac.imaging.boxes import as_boxes
from pedfrac.statistics.intervals import Interval
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

CENTRE_SPREAD = 0.25  # standard deviation of the centre prior, share of the image's sides
METRICS = ("pointing", "energy", "iou")
NO_BOX = "no image with a fracture box"
NOTE = (
    "Images with a fracture box. Pointing: share of images whose hottest pixel lies in a box. "
    "Energy: mean share of the heat inside the boxes, heat beside the image included. IoU: mean "
    "intersection over union of the boxes and the pixels whose heat is at least {marked:.0%} of "
    "the map's maximum. Chance: mean share of the image's own area (without the letterbox) inside "
    "the boxes, which a random point, even heat and the IoU of all of the image reach. Centre "
    "prior: a Gaussian in the middle of each image, a quarter of its sides wide, measured like a "
    "map; a map that does not beat it has shown nothing. A flat map is no hit and has the energy "
    "and IoU of chance. Intervals: 95 %, over patients; differences are paired."
)


@dataclass(frozen=True, eq=False)
class Localisation:
    """Of each image with a box, all (k,): how its map meets the boxes, and how large they are."""

    image: NDArray[np.int64]  # place among the maps
    pointing: NDArray[np.bool_]  # the peak lies in a box
    energy: NDArray[np.float64]  # share of the heat inside the boxes
    iou: NDArray[np.float64]  # of the marked pixels and the boxes
    chance: NDArray[np.float64]  # share of the image inside the boxes


def localisation(
    maps: NDArray[np.float32],
    boxes: Sequence[NDArray[np.floating]],
    windows: ArrayLike | None = None,
    marked: float = 0.5,
) -> Localisation:
    """Return how well maps (n,S,S) meet boxes, n arrays (k,4) xyxy in their pixels.

    ``windows`` (n,4) xyxy say where the image lies in each letterbox; none: everywhere. Boxes are
    rounded outward and clipped to the window. ``pointing`` is the pointing game of Zhang et al.
    (IJCV 2018) without its tolerance, ``energy`` the energy-based one of Wang et al. (Score-CAM,
    CVPRW 2020), which counts heat beside the image too. For ``iou`` a map marks the pixels from a
    share ``marked`` of its maximum on; such shares are usual (Zhou et al., CVPR 2016: 0.2), half
    is the width at half maximum. A flat map has no peak, the energy of its area, and marks all
    of the image.
    """
    within = _windows(maps, windows)
    image = [at for at, found in enumerate(boxes) if len(found)]
    metrics = [_meet(maps[at], boxes[at], within[at], marked) for at in image]
    pointing, energy, iou, chance = zip(*metrics, strict=True) if metrics else ((),) * 4
    return Localisation(
        np.array(image, np.int64),
        np.array(pointing, bool),
        np.array(energy, float),
        np.array(iou, float),
        np.array(chance, float),
    )


def centre_maps(maps: NDArray[np.float32], windows: ArrayLike | None = None) -> NDArray[np.float32]:
    """Return the centre prior of each image, of the shape of maps (n,S,S), in the same windows.

    A Gaussian stretched to the image's aspect (Judd et al., MIT-CSAIL-TR-2012-001), 0 beside it.
    """
    priors = np.zeros(maps.shape, np.float32)
    for prior, (left, top, right, bottom) in zip(priors, _windows(maps, windows), strict=True):
        across, down = (
            _bell(size, low, high)
            for size, low, high in ((maps.shape[2], left, right), (maps.shape[1], top, bottom))
        )
        prior[:] = down[:, None] * across
    return priors


def join(parts: Sequence[Localisation]) -> Localisation:
    """Return consecutive parts as one; their ``image`` must already count from the first part."""
    return Localisation(
        *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Localisation))
    )


def localisation_metrics(
    found: Localisation, centre: Localisation, bootstrap: PatientBootstrap
) -> LocalisationMetrics:
    """Return pointing, energy and iou, each with the intervals of map, centre prior and chance.

    Also the paired differences of the map from the two, and whether the map beats them: whether
    the difference is above 0 with its whole interval; null where there is no interval.
    ``found`` and ``centre`` are of the same images, ``bootstrap`` of their patients.
    """
    metrics: dict[str, MapMetric] = {}
    chance = bootstrap.ratio(found.chance, reason=NO_BOX)
    for name in METRICS:
        of_map, of_centre = (
            bootstrap.ratio(getattr(one, name), reason=NO_BOX) for one in (found, centre)
        )
        others = {"centre_prior": of_centre, "chance": chance}
        beyond = {key: bootstrap.difference(of_map, one) for key, one in others.items()}
        metrics[name] = MapMetric(
            map=bootstrap.interval(of_map),
            centre_prior=bootstrap.interval(of_centre),
            chance=bootstrap.interval(chance),
            map_minus_centre_prior=beyond["centre_prior"],
            map_minus_chance=beyond["chance"],
            beats_centre_prior=_above_zero(beyond["centre_prior"]),
            beats_chance=_above_zero(beyond["chance"]),
        )
    return LocalisationMetrics(**metrics)


def covered(boxes: NDArray[np.floating], window: tuple[int, int, int, int]) -> float:
    """Return the share of an image, which lies in a window xyxy of its letterbox, inside boxes."""
    left, top, right, bottom = window
    inside = _mask((bottom, right), boxes)[top:, left:]
    return float(inside.mean()) if inside.size else 0.0


def _above_zero(interval: Interval) -> bool | None:
    return interval.is_above(0) if interval.bounds else None


def _windows(maps: NDArray[np.float32], windows: ArrayLike | None) -> NDArray[np.float64]:
    whole = (0, 0, maps.shape[2], maps.shape[1])
    return np.broadcast_to(whole, (len(maps), 4)) if windows is None else as_boxes(windows)


def _bell(size: int, low: float, high: float) -> NDArray[np.float64]:
    places = np.arange(size) + 0.5
    bell = np.exp(-(((places - (low + high) / 2) / ((high - low) * CENTRE_SPREAD)) ** 2) / 2)
    return np.where((places > low) & (places < high), bell, 0)


def _meet(
    heat: NDArray[np.float32],
    boxes: NDArray[np.floating],
    window: NDArray[np.floating],
    marked: float,
) -> tuple[bool, float, float, float]:
    image = _mask(heat.shape, [window])
    inside = _mask(heat.shape, boxes) & image
    area = float(inside.sum() / max(image.sum(), 1))
    if heat.max() == heat.min():
        return False, area, area, area
    energy = heat[inside].sum(dtype=np.float64) / heat.sum(dtype=np.float64)
    mark = heat >= marked * heat.max()
    iou = (mark & inside).sum() / (mark | inside).sum()
    return bool(inside.flat[heat.argmax()]), float(energy), float(iou), area


def _mask(shape: tuple[int, ...], boxes: ArrayLike | list[Any]) -> NDArray[np.bool_]:
    """Return the pixels that boxes touch."""
    mask = np.zeros(shape, bool)
    for x1, y1, x2, y2 in as_boxes(boxes):
        top, left = max(0, int(np.floor(y1))), max(0, int(np.floor(x1)))
        mask[top : max(0, int(np.ceil(y2))), left : max(0, int(np.ceil(x2)))] = True
    return mask
