"""Metrics with their uncertainty over patients: jackknife and bootstrap by patient.

Arrays in, intervals out. How bounds are made of estimates is in intervals.py.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from pedfrac.statistics.classification import auroc, average_precision_function
from pedfrac.statistics.intervals import (
    Contrast,
    Estimate,
    Floats,
    Interval,
    Scale,
    contrast_of,
    difference_of,
    interval_of,
    missing,
)

CHUNK = 4_000_000  # image weights held at a time: some 100 MB with their intermediate results


class PatientBootstrap:
    """Patients left out and resampled, so that all metrics of the same images are paired.

    ``patients`` (n,) patient of each image; ``resamples``, drawn with ``seed`` once and when first
    needed, for bands of curves and calibration errors. Metrics come as estimates (``area``,
    ``precision``, ``ratio``, ``any_metric``), from which ``interval``, ``difference`` and
    ``contrast`` make intervals, with None and a ``reason`` where the metric or its bounds do not
    exist. Images of one patient are one trial.
    """

    def __init__(self, patients: ArrayLike, resamples: int, seed: int):
        numbers, self._patient = np.unique(np.asarray(patients), return_inverse=True)
        self.count = len(numbers)
        self._resamples, self._seed = resamples, seed

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
        """How often each image is in each resample, (resamples, n)."""
        return self._counts[:, self._patient].astype(np.int64)

    def interval(self, estimate: Estimate) -> Interval:
        """Return the interval of an estimate of these patients."""
        return interval_of(estimate)

    def difference(self, a: Estimate, b: Estimate) -> Interval:
        """Return the interval of ``a - b``, both of these patients, paired by them."""
        return difference_of(a, b)

    def contrast(self, a: Estimate, b: Estimate) -> Contrast:
        """Return the interval of ``a - b``, of two parts of these patients' images, and its p."""
        return contrast_of(a, b)

    def area(self, truth: ArrayLike, score: ArrayLike, among: ArrayLike | None = None) -> Estimate:
        """Return the area under the ROC curve of (n,) scores, of all images or among some."""
        some = self._images(among)
        truth, score = np.asarray(truth, bool)[some], np.asarray(score, np.float64)[some]
        patient = self._patient[some]
        sides = (len(np.unique(patient[truth])), len(np.unique(patient[~truth])))
        return Estimate(
            auroc(truth, score),
            _areas_without(truth, score, patient, self.count),
            min(sides),
            reason=_one_class(truth),
        )

    def precision(self, truth: ArrayLike, score: ArrayLike) -> Estimate:
        """Return the average precision of (n,) scores."""
        truth = np.asarray(truth, bool)
        metric = average_precision_function(truth, np.asarray(score, np.float64))
        reason = "no fractured images" if len(truth) else "no images"
        return self.any_metric(metric, patients=self._patients_with(truth), reason=reason)

    def ratio(
        self,
        part: ArrayLike,
        whole: ArrayLike | None = None,
        *,
        scale: Scale = "logit",
        reason: str = "no images",
    ) -> Estimate:
        """Return the sum of ``part`` over that of ``whole``, both (n,); none: images are counted.

        A rate is the ratio of hits to images among which they may be, a mean that of values to
        images; ``whole`` is positive for the images that count and 0 for the others.
        """
        part = np.asarray(part, np.float64)
        whole = np.ones(len(part)) if whole is None else np.asarray(whole, np.float64)
        parts, wholes = self._by_patient(part), self._by_patient(whole)
        return Estimate(
            float(_divide(part.sum(), whole.sum())),
            _divide(parts.sum() - parts, wholes.sum() - wholes),
            int(np.count_nonzero(wholes)),
            scale,
            reason,
        )

    def any_metric(
        self,
        metric: Callable[[Floats], Floats],
        *,
        patients: int | None = None,
        scale: Scale = "logit",
        reason: str = "undefined on these images",
    ) -> Estimate:
        """Return the estimate of any smooth metric of image weights, (r, n) -> (r,).

        NaN where undefined. ``patients``: on how many it rests; none: all.
        """
        return Estimate(
            metric(np.ones((1, len(self._patient))))[0],
            self._without_each(metric),
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
        if found.bounds and np.array_equal(rankdata(a), rankdata(b)):
            # scores that order the images alike have the same area in whatever images
            return found.bounded(0, 0, "exact")
        return found

    def average_precision_interval(self, truth: ArrayLike, score: ArrayLike) -> Interval:
        """Return the interval of the average precision of (n,) scores."""
        return self.interval(self.precision(truth, score))

    def rate_interval(
        self, hit: ArrayLike, among: ArrayLike | None = None, reason: str = "no images"
    ) -> Interval:
        """Return the interval of the share of hits, (n,) bool, among some images, (n,) bool."""
        return self.interval(self.rate(hit, among, reason))

    def rate(
        self, hit: ArrayLike, among: ArrayLike | None = None, reason: str = "no images"
    ) -> Estimate:
        """Return the share of hits, (n,) bool, among some images, (n,) bool."""
        hit = np.asarray(hit, bool)
        among = np.ones_like(hit) if among is None else np.asarray(among, bool)
        return self.ratio(hit & among, among, reason=reason)

    def rate_difference(
        self, a: ArrayLike, b: ArrayLike, among: ArrayLike | None = None, reason: str = "no images"
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
            return missing("no fractured images" if len(truth) else "no images")
        # F1 = 2J / (1 + J) with the rate J of hits among the images that are or are called so.
        found = self.rate_interval(truth & call, truth | call)
        ends = {name: getattr(found, name) for name in ("value", "low", "high")}
        return found.model_copy(
            update={name: 2 * j / (1 + j) for name, j in ends.items() if j is not None}
        )

    def macro_f1_interval(self, truth: ArrayLike, call: ArrayLike) -> Interval:
        """Return the interval of F1 of (n,) class indices, mean over the classes in ``truth``."""
        classes, calls = np.asarray(truth), np.asarray(call)
        present = np.unique(classes)
        if not len(present):
            return missing("no images")
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
                self.count,
            )
        )

    def resampled_means(self, values: Floats) -> Floats:
        """Return the mean of values (n, k) over the images of each resample, (resamples, k)."""
        sums = np.stack([self._sums(self._by_patient(column)) for column in values.T], axis=1)
        images = self._sums(self._by_patient(np.ones(len(values))))
        return np.asarray(sums / images[:, None])

    def _images(self, among: ArrayLike | None) -> NDArray[np.int64]:
        """Return the places of some images; none: all."""
        if among is None:
            return np.arange(len(self._patient))
        return np.flatnonzero(np.asarray(among, bool))

    def _by_patient(self, values: ArrayLike) -> Floats:
        """Return the sum of the values of each patient's images, (patients,)."""
        weights = np.asarray(values, np.float64)
        return np.asarray(np.bincount(self._patient, weights, self.count), np.float64)

    def _sums(self, by_patient: Floats) -> Floats:
        """Return the sum of the patients' values in each resample, (resamples,)."""
        return (self._counts @ by_patient.astype(np.float32)).astype(np.float64)

    def _patients_with(self, images: NDArray[np.bool_]) -> int:
        return len(np.unique(self._patient[images]))

    def _without_each(self, metric: Callable[[Floats], Floats]) -> Floats:
        """Return a metric of image weights with each patient left out, (patients,)."""
        everyone = np.arange(self.count)
        parts = [
            metric((everyone[rows, None] != self._patient).astype(np.float64))
            for rows in self._chunks(self.count)
        ]
        return np.concatenate(parts or [np.empty(0)])

    def _chunks(self, rows: int) -> Iterator[slice]:
        """Return slices of rows of image weights that fit into memory together."""
        step = max(1, CHUNK // max(1, len(self._patient)))
        return (slice(start, start + step) for start in range(0, rows, step))


def _divide(part: Any, whole: Any) -> Floats:
    """Return ratios, NaN where there is nothing to divide by."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _mean_f1(sums: Floats) -> Floats:
    """Return the mean F1 of the classes with images, from (classes, 3, r) hits, sizes, counts."""
    hits, sizes, images = sums[:, 0], sums[:, 1], sums[:, 2]
    scores = np.where(images > 0, 2 * hits / np.maximum(sizes, 1), 0)
    return _divide(scores.sum(axis=0), (images > 0).sum(axis=0))


def _areas_without(
    truth: NDArray[np.bool_], score: Floats, patient: NDArray[np.int64], patients: int
) -> Floats:
    """Return the area under the ROC curve with each patient left out, (patients,).

    Wins are pairs of a fractured image above a normal one, ties counted half. Without a patient
    they are less by the wins of that patient's images, of which those among them count once.
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


def _one_class(truth: NDArray[np.bool_]) -> str:
    if not len(truth):
        return "no images"
    return "only fractured images" if np.all(truth) else "only normal images"
