"""Calibration: do probabilities mean what they say, and the maps that make them do so.

Not here: thresholds (operating) and how well scores order images (metrics).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from pedfrac.scoring.calibrators import SURE, log_loss_of
from pedfrac.statistics.intervals import TAIL, Estimate, Floats, Interval
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.statistics.result import Result

IMAGES_PER_BIN = 10  # fewer tell nothing of a rate: there are then fewer bins
STEPS, CLOSE = 8, 1e-6  # of Newton's method, from the fit to all images to that without a few


class ErrorInterval(Interval):
    """An expected calibration error; chance: what right probabilities would show."""

    chance: float | None = None


class Bin(Result):
    """A point of a reliability curve."""

    images: int
    predicted: float
    observed: Interval


class CalibrationMetrics(Result):
    """How far probabilities mean what they say."""

    brier: Interval
    log_loss: Interval
    observed_expected: Interval
    intercept: Interval
    slope: Interval
    ece: ErrorInterval
    curve: list[Bin]


class BrierChange(Result):
    """By how much the Brier score is larger after calibration than before, paired by patients."""

    brier: Interval


class GroupCalibration(Result):
    """Calibration of an age group, before and after the map fitted on validation images."""

    name: str
    before: CalibrationMetrics
    after: CalibrationMetrics
    change: BrierChange


class Calibration(Result):
    """Calibration of the bundle."""

    method: str
    weights: list[float]
    groups: list[GroupCalibration]


def calibration_metrics(
    patients: PatientBootstrap, truth: ArrayLike, probability: ArrayLike, bins: int = 10
) -> CalibrationMetrics:
    """Return how far probabilities (n,) mean what they say of the truth (n,), as intervals.

    brier, log_loss; ece (see ``calibration_error``); observed_expected, the number of fractured
    images over that expected; intercept, what must be added to all log odds for this to be 1
    (calibration in the large), and slope, by which log odds should be multiplied (below 1: too
    sure of itself), both by logistic recalibration (Cox 1958; Van Calster et al. 2019); and the
    reliability curve in up to ``bins`` bins of equally many images.
    """
    truth = np.asarray(truth, bool)
    scores = np.asarray(probability, np.float64)
    sure = scores.clip(SURE, 1 - SURE)
    surprise = -np.where(truth, np.log(sure), np.log1p(-sure))
    place = equal_mass_bins(scores, bins)
    estimates = {
        "brier": patients.ratio(np.square(scores - truth), scale="log"),
        "log_loss": patients.ratio(surprise, scale="log"),
        "observed_expected": patients.ratio(truth, scores, scale="log"),
        "intercept": recalibration(patients, truth, scores, slope=False),
        "slope": recalibration(patients, truth, scores, slope=True),
    }
    return CalibrationMetrics(
        **{name: patients.interval(estimate) for name, estimate in estimates.items()},
        ece=calibration_error(patients, truth, scores, place),
        curve=_curve(patients, truth, scores, place),
    )


def before_and_after(
    name: str,
    patients: PatientBootstrap,
    truth: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    bins: int = 10,
) -> GroupCalibration:
    """Return the metrics of a group's probabilities (n,) before and after calibration."""
    return GroupCalibration(
        name=name,
        before=calibration_metrics(patients, truth, before, bins),
        after=calibration_metrics(patients, truth, after, bins),
        change=BrierChange(brier=patients.brier_difference(truth, after, before)),
    )


def equal_mass_bins(probability: Floats, bins: int) -> NDArray[np.int64]:
    """Return the bin of each image (n,), with equally many in each but that equal ones stay joined.

    There are fewer bins than ``bins`` where one would hold fewer than ten images.
    """
    count = max(1, min(bins, len(probability) // IMAGES_PER_BIN))
    if not len(probability):
        return np.empty(0, np.int64)
    edges = np.unique(np.quantile(probability, np.arange(1, count) / count))
    return np.searchsorted(edges, probability, side="right").astype(np.int64)


def calibration_error(
    patients: PatientBootstrap, truth: ArrayLike, probability: ArrayLike, place: NDArray[np.int64]
) -> ErrorInterval:
    """Return the expected calibration error: mean over images of |observed - predicted| of its bin.

    ``place`` (n,): the bin of each image. Chance alone makes the error positive, and more so in
    resamples, so that plain percentiles never hold the truth where probabilities are right. Hence
    ``low`` is the least error that would give one as large as was found in 2.5 % of resamples, 0
    where right probabilities would; ``high`` lies as far above the error found as the resamples'
    97.5 % lie above their mean. ``chance``: the mean error that right probabilities would show on
    these images.
    """
    gaps = np.asarray(truth, np.float64) - np.asarray(probability, np.float64)
    if not len(gaps):
        return _unknown(None, "no images")
    if np.isnan(gaps).any():
        return _unknown(None, "undefined on these images")
    by_bin = gaps[:, None] * (place[:, None] == np.unique(place))
    observed = by_bin.mean(axis=0)
    value = float(np.abs(observed).sum())
    if patients.count < 2:
        return _unknown(value, "one patient")
    drawn = patients.resampled_means(by_bin)
    if not len(drawn):
        return _unknown(value, "without resamples")
    noise, errors = drawn - observed, np.abs(drawn).sum(axis=1)
    return ErrorInterval(
        value=value,
        low=_least_error(observed, noise, value),
        high=float(value + np.quantile(errors, 1 - TAIL) - errors.mean()),
        method="test inversion",
        chance=float(np.abs(noise).sum(axis=1).mean()),
    )


def _unknown(value: float | None, reason: str) -> ErrorInterval:
    return ErrorInterval(value=value, low=None, high=None, reason=reason)


def _least_error(observed: Floats, noise: Floats, value: float) -> float:
    """Return the least share of the bins' gaps (k,) that with noise (r, k) may make the value."""
    for share in np.linspace(0, 1, 51):
        reach = np.quantile(np.abs(share * observed + noise).sum(axis=1), 1 - TAIL)
        if reach >= value:
            return float(share * value)
    return value


def recalibration(
    patients: PatientBootstrap, truth: ArrayLike, probability: ArrayLike, *, slope: bool
) -> Estimate:
    """Return the slope of a logistic regression of the truth on log odds, or the intercept.

    The intercept is that where the slope is held at 1. NaN where images are of one kind, told apart
    without an error (the slope has no end then), or all scored alike.
    """
    kinds = np.asarray(truth, np.float64)
    odds = logit(np.asarray(probability, np.float64).clip(SURE, 1 - SURE))
    start, reason = _recalibrated(kinds, odds, slope)

    def metric(weights: Floats) -> Floats:
        if reason:
            return np.full(len(weights), np.nan)
        fits = np.tile(start, (len(weights), 1))
        step = np.full_like(fits, np.inf)
        # Without some patients the images may be told apart without an error: no fit is near then.
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            for _ in range(STEPS):
                step = _newton(weights, kinds, odds, fits, slope)
                fits += step
                if np.nanmax(np.abs(step), initial=0) < CLOSE:
                    break
            far = ~(np.abs(step).max(axis=1) < CLOSE**0.5)
        return np.where(far, np.nan, fits[:, int(slope)])

    return patients.any_metric(metric, scale="plain", reason=reason or "undefined")


def _recalibrated(kinds: Floats, odds: Floats, slope: bool) -> tuple[Floats, str]:
    """Return intercept and slope fitted to all images, and the reason if there are none."""
    fit = np.array([[0.0, 1.0]])
    if not len(kinds):
        return fit[0], "no images"
    if kinds.min() == kinds.max():
        return fit[0], f"only {'fractured' if kinds.all() else 'normal'} images"
    if np.isnan(odds).any():
        return fit[0], "undefined on these images"
    if slope and odds.min() == odds.max():
        return fit[0], "all images have the same probability"
    fractured, normal = odds[kinds == 1], odds[kinds == 0]
    if slope and (fractured.min() >= normal.max() or fractured.max() <= normal.min()):
        return fit[0], "the images are told apart without an error"
    terms = np.stack([np.ones_like(odds), odds])

    def loss(weights: Floats) -> Any:
        z = weights @ terms
        pull = terms @ (expit(z) - kinds)
        return log_loss_of(z, kinds) * len(z), pull if slope else pull * (1, 0)

    fit = minimize(loss, x0=fit[0], jac=True, options={"gtol": 1e-8}).x[None]
    for _ in range(2):
        fit = fit + _newton(np.ones((1, len(odds))), kinds, odds, fit, slope)
    return fit[0], ""


def _newton(weights: Floats, kinds: Floats, odds: Floats, fits: Floats, slope: bool) -> Floats:
    """Return Newton's step of weighted logistic regressions (r, n) from their fits (r, 2)."""
    chance = expit(fits[:, :1] + fits[:, 1:] * odds)
    pull = weights * (kinds - chance)
    curve = weights * chance * (1 - chance)
    g0, h00 = pull.sum(axis=1), curve.sum(axis=1)
    if not slope:
        return np.stack([g0 / h00, np.zeros_like(g0)], axis=1)
    g1, h01, h11 = pull @ odds, curve @ odds, curve @ odds**2
    whole = h00 * h11 - h01**2
    return np.stack([h11 * g0 - h01 * g1, h00 * g1 - h01 * g0], axis=1) / whole[:, None]


def _curve(
    patients: PatientBootstrap, truth: NDArray[np.bool_], scores: Floats, place: NDArray[np.int64]
) -> list[Bin]:
    return [
        Bin(
            images=int((place == one).sum()),
            predicted=float(scores[place == one].mean()),
            observed=patients.rate_interval(truth, place == one),
        )
        for one in np.unique(place)
    ]
