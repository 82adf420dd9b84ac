"""Faithfulness: does the probability follow the heat as it is put into an image or taken out of it?

Insertion and deletion of Petsiuk et al. (RISE, BMVC 2018). Not here: fracture boxes (localisation).
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from pedfrac.explanation.localisation import centre_maps
from pedfrac.explanation.metrics import Faithfulness, PriorMetric
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

Score = Callable[[NDArray[np.uint8]], NDArray[np.float64]]
STEPS = 10
BLUR = 1 / 20  # of the image's side: twice that of RISE, which leaves a bent bone to be seen
NOTE = (
    f"Images that are fractured. Pixels of the image go from hottest to coldest in {STEPS} steps "
    "from the image to its blurred copy (deletion) or back (insertion). The metric is the mean "
    "probability of a fracture on the way (area under the curve), mean over images: of a faithful "
    "map deletion is low and insertion high. Centre prior: the same in order of distance from the "
    "middle; differences are paired."
)


def faithfulness_metrics(
    score: Score,
    images: NDArray[np.uint8],
    maps: NDArray[np.float32],
    windows: Sequence[tuple[int, int, int, int]],
    bootstrap: PatientBootstrap,
) -> Faithfulness:
    """Return images, steps, and deletion and insertion as intervals of map and centre prior.

    ``score`` gives probabilities (n,) of images (n,S,S), whose ``maps`` are (n,S,S) and ``windows``
    xyxy. A map beats the centre prior if its difference lies on the better side of 0.
    """
    priors = centre_maps(maps, windows)
    metrics: dict[str, PriorMetric] = {}
    for name, better in (("deletion", -1), ("insertion", 1)):
        of_map, of_centre = (
            bootstrap.ratio(
                _area(score, images, heat, windows, name == "insertion"),
                reason="no fractured image",
            )
            for heat in (maps, priors)
        )
        beyond = bootstrap.difference(of_map, of_centre)
        bound = beyond.low if better > 0 else beyond.high
        metrics[name] = PriorMetric(
            map=bootstrap.interval(of_map),
            centre_prior=bootstrap.interval(of_centre),
            map_minus_centre_prior=beyond,
            beats_centre_prior=None if bound is None else bound * better > 0,
        )
    return Faithfulness(images=len(images), steps=STEPS, note=NOTE, **metrics)


def _area(
    score: Score,
    images: NDArray[np.uint8],
    maps: NDArray[np.float32],
    windows: Sequence[tuple[int, int, int, int]],
    insert: bool,
) -> NDArray[np.float64]:
    """Return the area under the curve of probabilities (n,), by trapezoids."""
    if not len(images):
        return np.empty(0)
    place = np.stack([_order(heat, window) for heat, window in zip(maps, windows, strict=True)])
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), image.shape[0] * BLUR) for image in images])
    blurred = np.where(np.isinf(place), images, blurred)
    start, end = (blurred, images) if insert else (images, blurred)
    shares = np.linspace(0, 1, STEPS + 1)
    curve = [score(np.where(place < share, end, start)) for share in shares]
    return np.asarray(trapezoid(curve, shares, axis=0), np.float64)


def _order(heat: NDArray[np.float32], window: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """Return when each pixel (S,S) is changed, from 0 (hottest) to 1; infinity beside the image.

    Pixels of equal heat come in a random order, which is the same for every image.
    """
    left, top, right, bottom = window
    inner = heat[top:bottom, left:right]
    ties = np.random.default_rng(0).permutation(inner.size)
    order = np.lexsort((ties, -inner.ravel()))
    turns = np.empty(inner.size)
    turns[order] = np.arange(inner.size) / inner.size
    places = np.full(heat.shape, np.inf)
    places[top:bottom, left:right] = turns.reshape(inner.shape)
    return places
