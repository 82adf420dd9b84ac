"""Metrics: figures of classifiers, thresholds, and intervals by bootstrap over patients.

Not here: which films and models are compared (evaluation). Arrays in, plain numbers out.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pedfrac.config import EvaluationConfig

Interval = dict[str, Any]
Floats = NDArray[np.float64]

LEVEL = 0.95
CHUNK = 4_000_000  # film weights held at a time: some 100 MB with their intermediate results


def classification_figures(truth: ArrayLike, probabilities: ArrayLike) -> dict[str, float | None]:
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
    figures = {
        "loss": -np.log(own.clip(np.finfo(np.float64).eps, 1)).mean(),
        "accuracy": np.mean(calls == classes),
        "f1": _f1_of_confusion(matrix),
        "auroc": np.mean([area for area in areas if not np.isnan(area)] or [np.nan]),
    }
    return {name: float(value) if np.isfinite(value) else None for name, value in figures.items()}


def auroc(truth: ArrayLike, score: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return the area under the ROC curve, ties counted half; NaN with one class or NaN scores.

    ``truth`` (n,) bool, ``score`` (n,), ``weights`` (n,) of the films (none: one each).
    """
    truth = np.asarray(truth, bool)
    weights = np.ones(len(truth)) if weights is None else np.asarray(weights, np.float64)
    return float(_auroc_function(truth, np.asarray(score, np.float64))(weights[None])[0])


def confusion(truth: ArrayLike, call: ArrayLike, classes: int) -> list[list[int]]:
    """Return how many films of each true class (row) were called each class (column)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (np.asarray(truth, np.int64), np.asarray(call, np.int64)), 1)
    return matrix.tolist()


def choose_threshold(truth: ArrayLike, probability: ArrayLike, config: EvaluationConfig) -> float:
    """Return the threshold by the rule of ``config``; a film is called where probability >= it.

    ``truth`` (n,) bool, ``probability`` (n,). A threshold lies midway between neighbouring scores,
    so that a tiny change of a score changes no call. Youden: the best of sensitivity plus
    specificity, of equals the more sensitive. Sensitivity: the largest that reaches the target.
    ``config.fixed`` where there is one class only, or none separates better than chance (Youden).
    """
    truth, scores = np.asarray(truth, bool), np.asarray(probability, np.float64)
    if config.threshold == "fixed" or truth.all() or not truth.any():
        return config.fixed
    levels, place = np.unique(scores, return_inverse=True)
    below = np.concatenate([[min(0.0, levels[0])], levels[:-1]])
    middle = (below + levels) / 2
    thresholds = np.where(middle > below, middle, levels)
    # Films called at each threshold, from all of them down to those of the highest score.
    hits = np.bincount(place, truth)[::-1].cumsum()[::-1]
    alarms = np.bincount(place, ~truth)[::-1].cumsum()[::-1]
    if config.threshold == "sensitivity":
        reached = hits >= config.sensitivity * truth.sum() - 1e-9
        return float(thresholds[reached][-1])
    # Times the number of pairs, so that equal values are equal in floating point, too.
    youden = hits * (~truth).sum() - alarms * truth.sum()
    best = int(youden.argmax())
    return float(thresholds[best]) if youden[best] > 0 else config.fixed


def interval_in_words(interval: Mapping[str, Any]) -> str:
    """Return an interval as ``0.93 (0.88–0.97)``, with the reason where a part is missing."""
    if interval["value"] is None:
        return f"– ({interval['reason']})"
    value = f"{interval['value']:.2f}"
    if interval["low"] is not None:
        return f"{value} ({interval['low']:.2f}–{interval['high']:.2f})"
    return f"{value} ({interval['reason']})" if "reason" in interval else value


class PatientBootstrap:
    """Resamples of patients, drawn once, so that all figures computed with them are paired.

    ``patients`` (n,) patient of each film. Intervals are dicts ``value``, ``low``, ``high`` (95 %,
    percentiles), with null and a ``reason`` where the figure or its bounds do not exist.
    Resamples in which a figure is undefined are left out; at least half must remain.

    Where a rate or area is exactly 0 or 1, every resample repeats it and percentiles would claim
    certainty. The bounds are then Clopper and Pearson's (Biometrika 1934) with patients as trials:
    for an area the disjoint pairs of a fractured and a normal patient, each ordered rightly with
    the probability that the area is.
    """

    def __init__(self, patients: ArrayLike, resamples: int, seed: int):
        numbers, self._patient = np.unique(np.asarray(patients), return_inverse=True)
        count = len(numbers)
        random = np.random.default_rng(seed)
        self._counts = np.zeros((resamples, count), np.float32)  # exact to 16 million
        if count:
            self._counts[:] = random.multinomial(count, np.full(count, 1 / count), size=resamples)

    @property
    def weights(self) -> NDArray[np.int64]:
        """How often each film is in each resample, (resamples, n)."""
        return self._counts[:, self._patient].astype(np.int64)

    def interval(
        self,
        figure: Callable[[Floats], Floats],
        *,
        trials: int | None = None,
        reason: str = "undefined on these films",
    ) -> Interval:
        """Return the interval of any figure of film weights, (r, n) -> (r,), NaN where undefined.

        ``trials``: independent trials where the figure is a proportion of such. ``reason``: why
        the figure does not exist, if it does not.
        """
        value = figure(np.ones((1, len(self._patient))))[0]
        samples = [figure(weights) for weights in self._chunks()]
        return self._finish(value, np.concatenate(samples or [np.empty(0)]), trials, reason)

    def auroc_interval(self, truth: ArrayLike, score: ArrayLike) -> Interval:
        """Return the interval of the area under the ROC curve of (n,) scores."""
        truth = np.asarray(truth, bool)
        sides = self._patients_with(truth), self._patients_with(~truth)
        trials = min(*sides, max(self._counts.shape[1] // 2, 1))
        area = _auroc_function(truth, np.asarray(score, np.float64))
        return self.interval(area, trials=trials, reason=_one_class(truth))

    def average_precision_interval(self, truth: ArrayLike, score: ArrayLike) -> Interval:
        """Return the interval of the average precision of (n,) scores."""
        truth = np.asarray(truth, bool)
        precision = _average_precision_function(truth, np.asarray(score, np.float64))
        reason = "no fractured films" if len(truth) else "no films"
        return self.interval(precision, reason=reason)

    def rate_interval(
        self, hit: ArrayLike, among: ArrayLike | None = None, reason: str = "no films"
    ) -> Interval:
        """Return the interval of the share of hits, (n,) bool, among some films, (n,) bool."""
        hit = np.asarray(hit, bool)
        among = np.ones_like(hit) if among is None else np.asarray(among, bool)
        value, samples = self._ratios(hit & among, among)
        return self._finish(value, samples, self._patients_with(among), reason)

    def f1_interval(self, truth: ArrayLike, call: ArrayLike) -> Interval:
        """Return the interval of F1 of (n,) bool calls."""
        truth, call = np.asarray(truth, bool), np.asarray(call, bool)
        if not truth.any():
            return _missing("no fractured films" if len(truth) else "no films")
        # F1 = 2J / (1 + J) with the rate J of hits among the films that are or are called so.
        value, samples = self._ratios(truth & call, truth | call)
        trials = self._patients_with(truth | call)
        return self._finish(
            value, samples, trials, "no fractured films", lambda rate: 2 * rate / (1 + rate)
        )

    def macro_f1_interval(self, truth: ArrayLike, call: ArrayLike) -> Interval:
        """Return the interval of F1 of (n,) class indices, mean over the classes in ``truth``."""
        classes, calls = np.asarray(truth), np.asarray(call)
        present = np.unique(classes)
        parts = [self._class_f1(classes == name, calls == name) for name in present]
        if not parts:
            return _missing("no films")
        values, samples = (np.array(part) for part in zip(*parts, strict=True))
        there = ~np.isnan(samples)
        means = np.where(there, samples, 0).sum(axis=0) / there.sum(axis=0)
        return self._finish(values.mean(), means, None, "no films")

    def _class_f1(self, truth: NDArray[np.bool_], call: NDArray[np.bool_]) -> tuple[float, Floats]:
        """Return F1 of one class, and of each resample: NaN where the class is not in it."""
        value, rates = self._ratios(truth & call, truth | call)
        there = self._sums(truth) > 0
        return 2 * value / (1 + value), np.where(there, 2 * rates / (1 + rates), np.nan)

    def _ratios(self, part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> tuple[float, Floats]:
        """Return a ratio of film counts and that of each resample, NaN where nothing is there."""
        value = part.sum() / whole.sum() if whole.any() else np.nan
        with np.errstate(invalid="ignore"):
            return float(value), self._sums(part) / self._sums(whole)

    def _sums(self, films: NDArray[np.bool_]) -> Floats:
        """Return the number of marked films in each resample, (resamples,)."""
        per_patient = np.bincount(self._patient, films, minlength=self._counts.shape[1])
        return (self._counts @ per_patient.astype(np.float32)).astype(np.float64)

    def _patients_with(self, films: NDArray[np.bool_]) -> int:
        return len(np.unique(self._patient[films]))

    def _chunks(self) -> Iterator[Floats]:
        rows = max(1, CHUNK // max(1, len(self._patient)))
        for start in range(0, len(self._counts), rows):
            yield self._counts[start : start + rows][:, self._patient].astype(np.float64)

    def _finish(
        self,
        value: float,
        samples: Floats,
        trials: int | None,
        reason: str,
        scale: Callable[[Any], Any] = lambda rate: rate,
    ) -> Interval:
        """Return the interval of a value and its resamples, all of them put on a ``scale``."""
        if np.isnan(value):
            return _missing(reason)
        found: Interval = {"value": float(scale(value)), "low": None, "high": None}
        defined = samples[~np.isnan(samples)]
        if not len(samples):
            return found
        if self._counts.shape[1] < 2:
            return found | {"reason": "one patient"}
        if len(defined) * 2 < len(samples):
            return found | {"reason": "undefined in most resamples of the patients"}
        tail = (1 - LEVEL) / 2
        if trials and value in (0, 1):
            bound = tail ** (1 / trials)
            low, high = (scale(bound), 1) if value else (0, scale(1 - bound))
        else:
            low, high = np.quantile(scale(defined), (tail, 1 - tail))
        return found | {"low": float(low), "high": float(high)}


def _auroc_function(truth: NDArray[np.bool_], score: Floats) -> Callable[[Floats], Floats]:
    """Return the function from film weights (r, n) to the area under the ROC curve (r,)."""
    by_score = _weights_by_score(truth, score)

    def area(weights: Floats) -> Floats:
        fractured, normal = by_score(weights)
        beaten = normal.cumsum(axis=1) - normal / 2
        wins = np.einsum("rn,rn->r", fractured, beaten)
        pairs = fractured.sum(axis=1) * normal.sum(axis=1)
        return np.divide(wins, pairs, out=np.full(len(wins), np.nan), where=pairs > 0)

    return _undefined_without_scores(area, score)


def _average_precision_function(
    truth: NDArray[np.bool_], score: Floats
) -> Callable[[Floats], Floats]:
    """Return the function from film weights (r, n) to the average precision (r,).

    The mean over the fractured films of the precision at each one's score, as in scikit-learn.
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
    """Return the function from film weights (r, n) to those of fractured and of normal films.

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
    figure: Callable[[Floats], Floats], score: Floats
) -> Callable[[Floats], Floats]:
    if len(score) and not np.isnan(score).any():
        return figure
    return lambda weights: np.full(len(weights), np.nan)


def _f1_of_confusion(matrix: Floats) -> float:
    """Return F1 of class 1 of two, else the mean over the classes that have films."""
    films, calls, hits = matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)
    scores = 2 * hits / np.maximum(films + calls, 1)
    return float(scores[1] if len(matrix) == 2 else scores[films > 0].mean())


def _one_class(truth: NDArray[np.bool_]) -> str:
    if not len(truth):
        return "no films"
    return "only fractured films" if np.all(truth) else "only normal films"


def _missing(reason: str) -> Interval:
    return {"value": None, "low": None, "high": None, "reason": reason}
