"""Metrics: figures of classifiers and their uncertainty over patients.

Not here: which films and models are compared (evaluation), how bounds are made of estimates
(intervals) and where films begin to be called (operating). Arrays in, plain numbers out.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from pedfrac.intervals import (
    Estimate,
    Floats,
    Interval,
    Method,
    Scale,
    contrast_of,
    difference_of,
    interval_of,
    missing,
)

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


def interval_in_words(interval: Mapping[str, Any]) -> str:
    """Return an interval as ``0.93 (0.88–0.97)``, with the reason where a part is missing."""
    if interval["value"] is None:
        return f"– ({interval['reason']})"
    value = f"{interval['value']:.2f}"
    if interval["low"] is not None:
        return f"{value} ({interval['low']:.2f}–{interval['high']:.2f})"
    return f"{value} ({interval['reason']})" if "reason" in interval else value


class PatientBootstrap:
    """Patients left out and resampled, so that all figures of the same films are paired.

    ``patients`` (n,) patient of each film; ``resamples``, drawn with ``seed`` once and when first
    needed; ``method`` of the bounds (see ``intervals.interval_of``). Figures come as estimates
    (``area``, ``precision``, ``ratio``, ``any_figure``), from which ``interval`` and
    ``difference`` make intervals: dicts ``value``, ``low``, ``high`` (95 %), ``method``, with null
    and a ``reason`` where the figure or its bounds do not exist. Films of one patient are one
    trial. Resamples in which a figure is undefined are left out; at least half must remain.
    """

    def __init__(
        self, patients: ArrayLike, resamples: int, seed: int, method: Method = "jackknife"
    ):
        numbers, self._patient = np.unique(np.asarray(patients), return_inverse=True)
        self.count = len(numbers)
        self._resamples, self._seed, self._method = resamples, seed, method

    @cached_property
    def _counts(self) -> NDArray[np.float32]:
        """How often each patient is in each resample, (resamples, patients)."""
        counts = np.zeros((self._resamples, self.count), np.float32)  # exact to 16 million
        if self.count:
            random = np.random.default_rng(self._seed)
            shares = np.full(self.count, 1 / self.count)
            counts[:] = random.multinomial(self.count, shares, size=self._resamples)
        return counts

    @property
    def weights(self) -> NDArray[np.int64]:
        """How often each film is in each resample, (resamples, n)."""
        return self._counts[:, self._patient].astype(np.int64)

    def interval(self, estimate: Estimate) -> Interval:
        """Return the interval of an estimate of these patients."""
        return interval_of(estimate, self._method)

    def difference(self, a: Estimate, b: Estimate) -> Interval:
        """Return the interval of ``a - b``, both of these patients, paired by them."""
        return difference_of(a, b, self._method)

    def contrast(self, a: Estimate, b: Estimate) -> Interval:
        """Return the interval of ``a - b``, of two parts of these patients' films, and its p."""
        return contrast_of(a, b, self._method)

    def area(self, truth: ArrayLike, score: ArrayLike, among: ArrayLike | None = None) -> Estimate:
        """Return the area under the ROC curve of (n,) scores, of all films or among some."""
        some = self._films(among)
        truth, score = np.asarray(truth, bool)[some], np.asarray(score, np.float64)[some]
        patient = self._patient[some]
        figure = _auroc_function(truth, score)
        sides = (len(np.unique(patient[truth])), len(np.unique(patient[~truth])))
        return Estimate(
            auroc(truth, score),
            _areas_without(truth, score, patient, self.count),
            lambda: self._resampled(lambda weights: figure(weights[:, some])),
            min(sides),
            reason=_one_class(truth),
        )

    def precision(self, truth: ArrayLike, score: ArrayLike) -> Estimate:
        """Return the average precision of (n,) scores."""
        truth = np.asarray(truth, bool)
        figure = _average_precision_function(truth, np.asarray(score, np.float64))
        reason = "no fractured films" if len(truth) else "no films"
        return self.any_figure(figure, patients=self._patients_with(truth), reason=reason)

    def ratio(
        self,
        part: ArrayLike,
        whole: ArrayLike | None = None,
        *,
        scale: Scale = "logit",
        reason: str = "no films",
    ) -> Estimate:
        """Return the sum of ``part`` over that of ``whole``, both (n,); none: films are counted.

        A rate is the ratio of hits to films among which they may be, a mean that of values to
        films; ``whole`` is positive for the films that count and 0 for the others.
        """
        part = np.asarray(part, np.float64)
        whole = np.ones(len(part)) if whole is None else np.asarray(whole, np.float64)
        parts, wholes = self._by_patient(part), self._by_patient(whole)
        return Estimate(
            float(_divide(part.sum(), whole.sum())),
            _divide(parts.sum() - parts, wholes.sum() - wholes),
            lambda: _divide(self._sums(parts), self._sums(wholes)),
            int(np.count_nonzero(wholes)),
            scale,
            reason,
        )

    def any_figure(
        self,
        figure: Callable[[Floats], Floats],
        *,
        patients: int | None = None,
        scale: Scale = "logit",
        reason: str = "undefined on these films",
    ) -> Estimate:
        """Return the estimate of any smooth figure of film weights, (r, n) -> (r,).

        NaN where undefined. ``patients``: on how many it rests; none: all.
        """
        return Estimate(
            figure(np.ones((1, len(self._patient))))[0],
            self._without_each(figure),
            lambda: self._resampled(figure),
            self.count if patients is None else patients,
            scale,
            reason,
        )

    def auroc_interval(self, truth: ArrayLike, score: ArrayLike) -> Interval:
        """Return the interval of the area under the ROC curve of (n,) scores."""
        return self.interval(self.area(truth, score))

    def auroc_difference(self, truth: ArrayLike, a: ArrayLike, b: ArrayLike) -> Interval:
        """Return the interval of how much larger the area of scores ``a`` is than that of ``b``."""
        found = self.difference(self.area(truth, a), self.area(truth, b))
        if found["low"] is not None and np.array_equal(rankdata(a), rankdata(b)):
            # scores that order the films alike have the same area in whatever films
            found |= {"low": 0.0, "high": 0.0, "method": "exact"}
        return found

    def average_precision_interval(self, truth: ArrayLike, score: ArrayLike) -> Interval:
        """Return the interval of the average precision of (n,) scores."""
        return self.interval(self.precision(truth, score))

    def rate_interval(
        self, hit: ArrayLike, among: ArrayLike | None = None, reason: str = "no films"
    ) -> Interval:
        """Return the interval of the share of hits, (n,) bool, among some films, (n,) bool."""
        return self.interval(self.rate(hit, among, reason))

    def rate(
        self, hit: ArrayLike, among: ArrayLike | None = None, reason: str = "no films"
    ) -> Estimate:
        """Return the share of hits, (n,) bool, among some films, (n,) bool."""
        hit = np.asarray(hit, bool)
        among = np.ones_like(hit) if among is None else np.asarray(among, bool)
        return self.ratio(hit & among, among, reason=reason)

    def rate_difference(
        self, a: ArrayLike, b: ArrayLike, among: ArrayLike | None = None, reason: str = "no films"
    ) -> Interval:
        """Return the interval of how much larger the share of hits ``a`` is than that of ``b``."""
        return self.difference(self.rate(a, among, reason), self.rate(b, among, reason))

    def brier_difference(self, truth: ArrayLike, a: ArrayLike, b: ArrayLike) -> Interval:
        """Return the interval of how much larger the Brier score of ``a`` is than that of ``b``."""
        truth = np.asarray(truth, np.float64)
        scores = (self.ratio(np.square(np.asarray(one) - truth), scale="log") for one in (a, b))
        return self.difference(*scores)

    def f1_interval(self, truth: ArrayLike, call: ArrayLike) -> Interval:
        """Return the interval of F1 of (n,) bool calls."""
        truth, call = np.asarray(truth, bool), np.asarray(call, bool)
        if not truth.any():
            return missing("no fractured films" if len(truth) else "no films")
        # F1 = 2J / (1 + J) with the rate J of hits among the films that are or are called so.
        found = self.rate_interval(truth & call, truth | call)
        ends = {name: found[name] for name in ("value", "low", "high") if found[name] is not None}
        return found | {name: 2 * rate / (1 + rate) for name, rate in ends.items()}

    def macro_f1_interval(self, truth: ArrayLike, call: ArrayLike) -> Interval:
        """Return the interval of F1 of (n,) class indices, mean over the classes in ``truth``."""
        classes, calls = np.asarray(truth), np.asarray(call)
        present = np.unique(classes)
        if not len(present):
            return missing("no films")
        pairs = [
            (
                self._by_patient((classes == name) & (calls == name)),
                self._by_patient((classes == name) * 1.0 + (calls == name)),
                self._by_patient(classes == name),
            )
            for name in present
        ]
        sums = np.array(pairs)  # (classes, 3, patients)
        return self.interval(
            Estimate(
                float(_mean_f1(sums.sum(axis=2)[..., None])[0]),
                _mean_f1(sums.sum(axis=2)[..., None] - sums),
                lambda: _mean_f1(np.array([[self._sums(one) for one in row] for row in sums])),
                self.count,
            )
        )

    def resampled_means(self, values: Floats) -> Floats:
        """Return the mean of values (n, k) over the films of each resample, (resamples, k)."""
        sums = np.stack([self._sums(self._by_patient(column)) for column in values.T], axis=1)
        films = self._sums(self._by_patient(np.ones(len(values))))
        return np.asarray(sums / films[:, None])

    def _films(self, among: ArrayLike | None) -> NDArray[np.int64]:
        """Return the places of some films; none: all."""
        if among is None:
            return np.arange(len(self._patient))
        return np.flatnonzero(np.asarray(among, bool))

    def _by_patient(self, values: ArrayLike) -> Floats:
        """Return the sum of the values of each patient's films, (patients,)."""
        weights = np.asarray(values, np.float64)
        return np.asarray(np.bincount(self._patient, weights, self.count), np.float64)

    def _sums(self, by_patient: Floats) -> Floats:
        """Return the sum of the patients' values in each resample, (resamples,)."""
        return (self._counts @ by_patient.astype(np.float32)).astype(np.float64)

    def _patients_with(self, films: NDArray[np.bool_]) -> int:
        return len(np.unique(self._patient[films]))

    def _resampled(self, figure: Callable[[Floats], Floats]) -> Floats:
        parts = [
            figure(self._counts[rows][:, self._patient].astype(np.float64))
            for rows in self._chunks(self._resamples)
        ]
        return np.concatenate(parts or [np.empty(0)])

    def _without_each(self, figure: Callable[[Floats], Floats]) -> Floats:
        """Return a figure of film weights with each patient left out, (patients,)."""
        everyone = np.arange(self.count)
        parts = [
            figure((everyone[rows, None] != self._patient).astype(np.float64))
            for rows in self._chunks(self.count)
        ]
        return np.concatenate(parts or [np.empty(0)])

    def _chunks(self, rows: int) -> Iterator[slice]:
        """Return slices of rows of film weights that fit into memory together."""
        step = max(1, CHUNK // max(1, len(self._patient)))
        return (slice(start, start + step) for start in range(0, rows, step))


def _divide(part: Any, whole: Any) -> Floats:
    """Return ratios, NaN where there is nothing to divide by."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _mean_f1(sums: Floats) -> Floats:
    """Return the mean F1 of the classes with films, from (classes, 3, r) hits, sizes and films."""
    hits, sizes, films = sums[:, 0], sums[:, 1], sums[:, 2]
    scores = np.where(films > 0, 2 * hits / np.maximum(sizes, 1), 0)
    return _divide(scores.sum(axis=0), (films > 0).sum(axis=0))


def _areas_without(
    truth: NDArray[np.bool_], score: Floats, patient: NDArray[np.int64], patients: int
) -> Floats:
    """Return the area under the ROC curve with each patient left out, (patients,).

    Wins are pairs of a fractured film above a normal one, ties counted half. Without a patient
    they are less by the wins of that patient's films, of which those among them count once.
    """
    if not len(score) or np.isnan(score).any():
        return np.full(patients, np.nan)
    level = np.unique(score, return_inverse=True)[1]
    owners = patient[truth], patient[~truth]
    levels = level[truth], level[~truth]
    beaten = _rank_among(levels[1], levels[0])
    beating = truth.sum() - _rank_among(levels[0], levels[1])
    own = [owner * (len(score) + 1) + 1 + rank for owner, rank in zip(owners, levels, strict=True)]
    before = _rank_among(own[1], owners[0] * (len(score) + 1))
    among_own = _rank_among(own[1], own[0]) - before
    wins = np.bincount(owners[0], beaten - among_own, minlength=patients) + np.bincount(
        owners[1], beating, minlength=patients
    )
    fractured, normal = (np.bincount(owner, minlength=patients) for owner in owners)
    pairs = (len(owners[0]) - fractured) * (len(owners[1]) - normal)
    return _divide(beaten.sum() - wins, pairs)


def _rank_among(others: NDArray[np.int64], values: NDArray[np.int64]) -> Floats:
    """Return how many of the others lie below each value, equal ones counted half."""
    ordered = np.sort(others)
    sides = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return np.asarray(sum(sides), np.float64) / 2


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
