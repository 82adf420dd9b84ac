"""Metrics of classifiers: cross-entropy, accuracy, F1, ROC and precision-recall areas."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pedfrac.statistics.intervals import (
    Floats,
)


def classification_metrics(truth: ArrayLike, probabilities: ArrayLike) -> dict[str, float | None]:
    """Return loss (cross-entropy), accuracy, f1 and auroc of one classifier.

    ``truth`` (n,) class indices, ``probabilities`` (n, k). With two classes f1 and auroc are those
    of class 1; with more, f1 is the mean over the classes present in ``truth``, auroc the mean of
    one class against the rest over the classes for which it is defined. None where undefined.
    """
    classes, scores = np.asarray(truth, np.int64), np.asarray(probabilities, np.float64)
    if not len(classes):
        return dict.fromkeys(("loss", "accuracy", "f1", "auroc"))
    calls = scores.argmax(axis=1)
    own = scores[np.arange(len(classes)), classes]
    matrix = np.zeros((scores.shape[1],) * 2)
    np.add.at(matrix, (classes, calls), 1)
    columns = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    areas = [auroc(classes == column, scores[:, column]) for column in columns]
    metrics = {
        "loss": -np.log(own.clip(np.finfo(np.float64).eps, 1)).mean(),
        "accuracy": np.mean(calls == classes),
        "f1": _f1_of_confusion(matrix),
        "auroc": np.mean([area for area in areas if not np.isnan(area)] or [np.nan]),
    }
    return {name: float(value) if np.isfinite(value) else None for name, value in metrics.items()}


def auroc(truth: ArrayLike, score: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return the area under the ROC curve, ties counted half; NaN with one class or NaN scores.

    ``truth`` (n,) bool, ``score`` (n,), ``weights`` (n,) of the images (none: one each).
    """
    truth = np.asarray(truth, bool)
    weights = np.ones(len(truth)) if weights is None else np.asarray(weights, np.float64)
    return float(auroc_function(truth, np.asarray(score, np.float64))(weights[None])[0])


def confusion(truth: ArrayLike, call: ArrayLike, classes: int) -> list[list[int]]:
    """Return how many images of each true class (row) were called each class (column)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (np.asarray(truth, np.int64), np.asarray(call, np.int64)), 1)
    return matrix.tolist()


def auroc_function(truth: NDArray[np.bool_], score: Floats) -> Callable[[Floats], Floats]:
    """Return the function from image weights (r, n) to the area under the ROC curve (r,)."""
    by_score = _weights_by_score(truth, score)

    def area(weights: Floats) -> Floats:
        fractured, normal = by_score(weights)
        beaten = normal.cumsum(axis=1) - normal / 2
        wins = np.einsum("rn,rn->r", fractured, beaten)
        pairs = fractured.sum(axis=1) * normal.sum(axis=1)
        return np.divide(wins, pairs, out=np.full(len(wins), np.nan), where=pairs > 0)

    return _undefined_without_scores(area, score)


def average_precision_function(
    truth: NDArray[np.bool_], score: Floats
) -> Callable[[Floats], Floats]:
    """Return the function from image weights (r, n) to the average precision (r,).

    The mean over the fractured images of the precision at each one's score, as in scikit-learn.
    """
    by_score = _weights_by_score(truth, score)

    def average(weights: Floats) -> Floats:
        fractured, normal = by_score(weights)
        hits, alarms = (part[:, ::-1].cumsum(axis=1)[:, ::-1] for part in (fractured, normal))
        called = hits + alarms
        precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
        total = fractured.sum(axis=1)
        gained = np.einsum("rn,rn->r", fractured, precision)
        return np.divide(gained, total, out=np.full(len(total), np.nan), where=total > 0)

    return _undefined_without_scores(average, score)


def _weights_by_score(
    truth: NDArray[np.bool_], score: Floats
) -> Callable[[Floats], tuple[Floats, Floats]]:
    """Return the function from image weights (r, n) to those of fractured and of normal images.

    Both are (r, distinct scores), lowest score first.
    """
    order = np.argsort(score, kind="stable")
    positive, ranked = truth[order], score[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))

    def gather(weights: Floats) -> tuple[Floats, Floats]:
        weights = weights[:, order]
        fractured = np.add.reduceat(weights * positive, starts, axis=1)
        return fractured, np.add.reduceat(weights * ~positive, starts, axis=1)

    return gather


def _undefined_without_scores(
    metric: Callable[[Floats], Floats], score: Floats
) -> Callable[[Floats], Floats]:
    if len(score) and not np.isnan(score).any():
        return metric
    return lambda weights: np.full(len(weights), np.nan)


def _f1_of_confusion(matrix: Floats) -> float:
    """Return F1 of class 1 of two, else the mean over the classes that have images."""
    images, calls, hits = matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)
    scores = 2 * hits / np.maximum(images + calls, 1)
    return float(scores[1] if len(matrix) == 2 else scores[images > 0].mean())
