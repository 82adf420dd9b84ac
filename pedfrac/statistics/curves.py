"""Curves: receiver operating characteristic and precision-recall, with bands over patients.

Not here: their areas (classification) and how they are drawn (plots).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pedfrac.statistics.intervals import TAIL, Floats
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.statistics.result import Result

GRID = np.linspace(0, 1, 101)


class Roc(Result):
    """Sensitivity at each 1 - specificity, with a pointwise 95 % band over patients."""

    fpr: list[float]
    tpr: list[float]
    low: list[float]
    high: list[float]


class Pr(Result):
    """Precision at each recall, with a pointwise 95 % band over patients."""

    recall: list[float]
    precision: list[float]
    low: list[float]
    high: list[float]


class Curves(Result):
    """The curves of a model on all test images."""

    roc: Roc
    pr: Pr


def roc_and_pr(patients: PatientBootstrap, truth: ArrayLike, score: ArrayLike) -> Curves:
    """Return both curves of scores (n,): ``roc`` and ``pr``.

    ``roc``: sensitivity ``tpr`` at each ``fpr``, 1 - specificity; ``pr``: ``precision`` at each
    ``recall``. The curves are those of the images, at up to 101 points; ``low`` and ``high`` are
    the 2.5 % and 97.5 % quantiles over resamples of patients at each point by itself, empty without
    resamples. All are empty where the images are of one kind.
    """
    truth, score = np.asarray(truth, bool), np.asarray(score, np.float64)
    if truth.all() or not truth.any():
        none: list[float] = []
        return Curves(
            roc=Roc(fpr=none, tpr=none, low=none, high=none),
            pr=Pr(recall=none, precision=none, low=none, high=none),
        )
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    kinds = truth[order]
    one = np.ones((1, len(score)))
    tpr, precision = _curves(one, kinds, last)
    weights = patients.weights[:, order].astype(np.float64)
    bands = _curves(weights, kinds, last)
    return Curves(
        roc=Roc(fpr=GRID.tolist(), tpr=tpr[0].tolist(), **_band(bands[0])),
        pr=Pr(recall=GRID[1:].tolist(), precision=precision[0].tolist(), **_band(bands[1])),
    )


def _curves(
    weights: Floats, kinds: NDArray[np.bool_], last: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Return sensitivity (r, 101) and precision (r, 100) on the grid, of image weights (r, n).

    Images are ordered by falling score, ``last`` are the places where a score ends. Precision is
    the best that is had at a recall or above, as images are called in steps.
    """
    tpr, precision = np.full((len(weights), 101), np.nan), np.full((len(weights), 100), np.nan)
    for row, images in enumerate(weights):
        hits = np.concatenate([[0], np.cumsum(images * kinds)[last]])
        alarms = np.concatenate([[0], np.cumsum(images * ~kinds)[last]])
        if not hits[-1] or not alarms[-1]:
            continue
        recall, false = hits / hits[-1], alarms / alarms[-1]
        # at equal alarms the images called last count: the curve goes straight up
        tpr[row] = np.interp(GRID, *_upper(false, recall))
        called = np.maximum(hits + alarms, 1e-12)
        best = np.maximum.accumulate((hits / called)[:0:-1])[::-1]
        precision[row] = best[np.searchsorted(recall[1:], GRID[1:] - 1e-12)]
    return tpr, precision


def _upper(false: Floats, recall: Floats) -> tuple[Floats, Floats]:
    """Return the points of a rising curve with the highest at each ``false``, first at 0."""
    end = np.append(np.diff(false) > 0, True)
    return false[end], recall[end]


def _band(curves: Floats) -> dict[str, list[float]]:
    defined = curves[~np.isnan(curves).any(axis=1)]
    if len(defined) < 2:
        return {"low": [], "high": []}
    low, high = np.quantile(defined, [TAIL, 1 - TAIL], axis=0)
    return {"low": low.tolist(), "high": high.tolist()}
