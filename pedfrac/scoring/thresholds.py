"""Operating points: where images begin to be called, where none is, and what that is worth.

All are chosen on validation images, and judged on others. Not here: how well scores order images
(metrics) and whether they are probabilities (calibration), which net benefit asks of them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from pedfrac.config.evaluation import AbstentionConfig, ScoringConfig
from pedfrac.scoring.calibrators import SURE, own_weight
from pedfrac.statistics.exact import lower_bounds
from pedfrac.statistics.intervals import Floats, Interval
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.statistics.result import Result

LEAST_IMAGES = 10  # fewer images beyond a bound tell nothing of its predictive value


class Band(NamedTuple):
    """Images below ``low`` are called normal, from ``high`` on fractured, between them not at all.

    None: no image is called so. ``reason``: why, if there is something to say.
    """

    low: float | None
    high: float | None
    reason: str = ""


class Thresholds(NamedTuple):
    """The threshold of all images, and of each age group; how far a group's own images set it."""

    pooled: float
    groups: tuple[float, ...]
    weights: tuple[float, ...]


class BandMetrics(Result):
    """The share of images that are called, and the metrics of those."""

    coverage: Interval
    sensitivity: Interval
    specificity: Interval
    accuracy: Interval
    ppv: Interval
    npv: Interval


def choose_threshold(
    truth: ArrayLike,
    probability: ArrayLike,
    config: ScoringConfig,
    patients: ArrayLike | None = None,
) -> float:
    """Return the threshold by the rule of ``config``; an image is called where probability >= it.

    ``truth`` (n,) bool, ``probability`` and ``patients`` (n,); without, each image is a patient. A
    threshold lies midway between neighbouring scores,
    so that a tiny change of a score changes no call. Youden: the best of sensitivity plus
    specificity, of equals the more sensitive. Sensitivity: the largest whose sensitivity, by its
    lower bound at ``config.confidence``, reaches the target; by its point estimate where patients
    are too few for any bound to reach it.
    ``config.fixed`` where there is one class only, or none separates better than chance (Youden).
    """
    truth, scores = np.asarray(truth, bool), np.asarray(probability, np.float64)
    if config.threshold == "fixed" or truth.all() or not truth.any():
        return config.fixed
    levels, place = np.unique(scores, return_inverse=True)
    below = np.concatenate([[min(0.0, levels[0])], levels[:-1]])
    middle = (below + levels) / 2
    thresholds = np.where(middle > below, middle, levels)
    # Images called at each threshold, from all of them down to those of the highest score.
    hits = np.bincount(place, truth)[::-1].cumsum()[::-1]
    alarms = np.bincount(place, ~truth)[::-1].cumsum()[::-1]
    if config.threshold == "sensitivity":
        trials = truth.sum() if patients is None else len(np.unique(np.asarray(patients)[truth]))
        share = hits / truth.sum()
        reached = lower_bounds(share, trials, config.confidence) >= config.sensitivity
        if not config.confidence or not reached.any():
            reached = share >= config.sensitivity - 1e-9
        return float(thresholds[reached][-1])
    # Times the number of pairs, so that equal values are equal in floating point, too.
    youden = hits * (~truth).sum() - alarms * truth.sum()
    best = int(youden.argmax())
    return float(thresholds[best]) if youden[best] > 0 else config.fixed


def choose_thresholds(
    truth: ArrayLike,
    probability: ArrayLike,
    group: ArrayLike,
    patients: ArrayLike,
    groups: int,
    config: ScoringConfig,
) -> Thresholds:
    """Return the threshold of all images, ``pooled``, and of each of the ``groups``.

    ``truth``, ``probability``, ``group`` and ``patients`` (n,) of validation images. With n
    patients the log odds of a group's own threshold weigh n / (n + config.threshold_shrinkage),
    those of the pooled one the rest; a group without images of both kinds takes the pooled one.
    ``weights``.
    """
    truth, scores = np.asarray(truth, bool), np.asarray(probability, np.float64)
    people = np.asarray(patients)
    pooled = choose_threshold(truth, scores, config, people)
    thresholds, weights = [], []
    for index in range(groups):
        some = np.asarray(group) == index
        weight = own_weight(truth[some], people[some], config.threshold_shrinkage)
        own = choose_threshold(truth[some], scores[some], config, people[some])
        odds = logit(np.clip([own, pooled], SURE, 1 - SURE))
        # At the ends of the weights exactly the one or the other, log odds or not.
        blended = {0.0: pooled, 1.0: own}.get(weight, float(expit(odds @ [weight, 1 - weight])))
        thresholds.append(blended)
        weights.append(weight)
    return Thresholds(pooled, tuple(thresholds), tuple(weights))


def choose_band(
    truth: ArrayLike,
    probability: ArrayLike,
    threshold: float,
    config: AbstentionConfig,
    patients: ArrayLike | None = None,
) -> Band:
    """Return the band around a threshold in which images are left to a reader.

    ``truth``, ``probability`` and ``patients`` (n,) of validation images; without patients each
    image is one. ``predictive values``: from ``high`` on the share of fractured images, below
    ``low`` that of normal ones, is at least the target with ``config.confidence``, among no fewer
    than ten images. Bounds are tried from the surest images inwards until the first fails (fixed
    sequence testing: Angelopoulos et al., Annals of Applied Statistics 2025), so that the error
    does not grow with their number. Both hold only where fractures are as frequent as here.
    ``coverage``:
    the share of images to be left out is that nearest to the threshold in log odds. Without a rule,
    or where every image can be called, both bounds are the threshold.
    """
    truth, scores = np.asarray(truth, bool), np.asarray(probability, np.float64)
    if config.rule == "none" or not len(scores):
        return Band(threshold, threshold)
    if config.rule == "coverage":
        return _band_of_coverage(scores, threshold, config.coverage)
    levels = np.unique(np.append(scores, threshold))
    people = np.arange(len(truth)) if patients is None else np.asarray(patients)
    tried = scores, people, config.confidence
    high = _innermost(truth, *tried, levels[levels >= threshold], config.ppv)
    # The same from above, with kinds and order turned about; a bound belongs to the images above.
    low = _innermost(
        ~truth,
        -scores,
        *tried[1:],
        -levels[levels <= threshold][::-1],
        config.npv,
        strictly=True,
    )
    unreached = [
        f"no bound reaches a {name} predictive value of {target:g} with {LEAST_IMAGES} images"
        for name, bound, target in (
            ("positive", high, config.ppv),
            ("negative", low, config.npv),
        )
        if bound is None
    ]
    return Band(None if low is None else -low, high, "; ".join(unreached))


def band_metrics(
    patients: PatientBootstrap,
    truth: ArrayLike,
    probability: ArrayLike,
    low: ArrayLike | None,
    high: ArrayLike | None,
) -> BandMetrics:
    """Return the coverage (share of images called), and the metrics of the images that are called.

    ``truth`` and ``probability`` (n,); ``low`` and ``high`` of all images or of each (n,), none: no
    image is called normal, or fractured.
    """
    truth, scores = np.asarray(truth, bool), np.asarray(probability, np.float64)
    fractured = scores >= (np.inf if high is None else np.asarray(high))
    normal = scores < (-np.inf if low is None else np.asarray(low))
    called = fractured | normal
    return BandMetrics(
        coverage=patients.rate_interval(called),
        sensitivity=patients.rate_interval(
            fractured, called & truth, "no fractured image was called"
        ),
        specificity=patients.rate_interval(normal, called & ~truth, "no normal image was called"),
        accuracy=patients.rate_interval(fractured == truth, called, "no image was called"),
        ppv=patients.rate_interval(truth, fractured, "no image was called fractured"),
        npv=patients.rate_interval(~truth, normal, "no image was called normal"),
    )


def _band_of_coverage(scores: Floats, threshold: float, coverage: float) -> Band:
    centre = logit(np.clip(threshold, SURE, 1 - SURE))
    distance = np.sort(np.abs(logit(scores.clip(SURE, 1 - SURE)) - centre))
    left_out = round((1 - coverage) * len(scores))
    if not left_out:
        return Band(threshold, threshold)
    if left_out == len(scores):
        return Band(None, None, "no image is to be called")
    radius = (distance[left_out - 1] + distance[left_out]) / 2
    return Band(float(expit(centre - radius)), float(expit(centre + radius)))


def _innermost(
    kind: NDArray[np.bool_],
    scores: Floats,
    patients: NDArray[np.generic],
    confidence: float,
    bounds: Floats,
    target: float,
    *,
    strictly: bool = False,
) -> float | None:
    """Return the lowest bound reached before the first from above that fails, else None."""
    order = np.argsort(scores)
    starts = np.searchsorted(scores[order], bounds, side="right" if strictly else "left")
    hits = np.append(np.cumsum(kind[order][::-1])[::-1], 0)[starts]
    images = len(scores) - starts
    share = hits / np.maximum(images, 1)
    if not confidence:
        reached = (share >= target - 1e-9) & (images >= LEAST_IMAGES)
        return float(bounds[reached][0]) if reached.any() else None
    # a patient counts from the image that lies deepest on
    first = np.unique(patients[order][::-1], return_index=True)[1]
    people = np.searchsorted(np.sort(first), images)
    testable = (images >= LEAST_IMAGES) & (lower_bounds(1.0, people, confidence) >= target)
    holds = lower_bounds(share, people, confidence) >= target
    best = None
    for place in np.flatnonzero(testable)[::-1]:
        if not holds[place]:
            break
        best = float(bounds[place])
    return best
