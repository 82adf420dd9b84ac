"""Faithfulness: does the probability follow the heat as pixels are removed from an image?

Remove and debias (ROAD) of Rong et al. (ICML 2022), as grad-cam has it. Not here: fracture boxes
(localisation).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.metrics.road import NoisyLinearImputer

from pedfrac.explanation.localisation import centre_maps
from pedfrac.explanation.metrics import Faithfulness, PriorMetric
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

Floats = NDArray[np.float64]
Window = tuple[int, int, int, int]
Score = Callable[[NDArray[np.uint8]], Floats]
SHARES = (0.2, 0.4, 0.6, 0.8)  # of an image's pixels that are removed
NOTE = (
    "Images that are fractured, by remove and debias (ROAD). A share of the pixels is replaced by "
    "noisy linear interpolation of the others, the hottest first or the coldest first; shares: "
    f"{', '.join(f'{100 * share:g} %' for share in SHARES)}. The metric is the mean change of the "
    "probability of a fracture over shares and images: of a faithful map it is low with the "
    "hottest first and high with the coldest first; combined is half their difference. Centre "
    "prior: the same in order of distance from the middle; differences are paired."
)
BETTER = {"most_relevant_first": -1, "least_relevant_first": 1, "combined": 1}


def faithfulness_metrics(
    score: Score,
    images: NDArray[np.uint8],
    maps: NDArray[np.float32],
    windows: Sequence[Window],
    bootstrap: PatientBootstrap,
) -> Faithfulness:
    """Return images, shares, and the three metrics as intervals of map and centre prior.

    ``score`` gives probabilities (n,) of images (n,S,S), whose ``maps`` are (n,S,S) and ``windows``
    xyxy. A map beats the centre prior if its difference lies on the better side of 0.
    """
    of_maps = _road(score, images, maps, windows)
    of_centres = _road(score, images, centre_maps(maps, windows), windows)
    metrics: dict[str, PriorMetric] = {}
    for name, better in BETTER.items():
        of_map, of_centre = (
            bootstrap.ratio(found[name], scale="plain", reason="no fractured image")
            for found in (of_maps, of_centres)
        )
        beyond = bootstrap.difference(of_map, of_centre)
        bound = beyond.low if better > 0 else beyond.high
        metrics[name] = PriorMetric(
            map=bootstrap.interval(of_map),
            centre_prior=bootstrap.interval(of_centre),
            map_minus_centre_prior=beyond,
            beats_centre_prior=None if bound is None else bound * better > 0,
        )
    return Faithfulness(images=len(images), shares=SHARES, note=NOTE, **metrics)


def _road(
    score: Score,
    images: NDArray[np.uint8],
    maps: NDArray[np.float32],
    windows: Sequence[Window],
) -> dict[str, Floats]:
    """Return the metrics of each image (n,) by name."""
    if not len(images):
        return dict.fromkeys(BETTER, np.empty(0))
    ranks = [_ranks(heat, window) for heat, window in zip(maps, windows, strict=True)]
    whole = score(images)
    most, least = (
        np.mean([score(_removed(images, ranks, windows, keep)) - whole for keep in kept], axis=0)
        for kept in (
            [lambda rank, s=share: rank >= s for share in SHARES],
            [lambda rank, s=share: rank < 1 - s for share in SHARES],
        )
    )
    return {
        "most_relevant_first": most,
        "least_relevant_first": least,
        "combined": (least - most) / 2,
    }


def _removed(
    images: NDArray[np.uint8],
    ranks: Sequence[Floats],
    windows: Sequence[Window],
    keep: Callable[[Floats], NDArray[np.bool_]],
) -> NDArray[np.uint8]:
    """Return images (n,S,S) whose pixels that are not kept are interpolated, within the windows."""
    impute, made = NoisyLinearImputer(), images.copy()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for image, rank, (left, top, right, bottom) in zip(made, ranks, windows, strict=True):
            inner = torch.from_numpy(image[top:bottom, left:right] / np.float32(255))[None]
            filled = impute(inner, torch.from_numpy(keep(rank).astype(np.float32)))
            image[top:bottom, left:right] = (255 * filled[0].clamp(0, 1)).round().numpy()
    return made


def _ranks(heat: NDArray[np.float32], window: Window) -> Floats:
    """Return the rank of each pixel within the window, from 0 (hottest) to 1.

    Pixels of equal heat come in a random order, which is the same for every image.
    """
    left, top, right, bottom = window
    inner = heat[top:bottom, left:right]
    ties = np.random.default_rng(0).permutation(inner.size)
    order = np.lexsort((ties, -inner.ravel()))
    ranks = np.empty(inner.size)
    ranks[order] = np.arange(inner.size) / inner.size
    return ranks.reshape(inner.shape)
