"""Calibrators: maps from scores to probabilities, fitted on validation images."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from pedfrac.config.base import Section
from pedfrac.config.evaluation import CalibrationConfig, CalibrationMethod
from pedfrac.statistics.intervals import Floats

SURE = 1e-7  # nearest that a probability comes to 0 or 1, where a logarithm is needed


class Calibrator(Section):
    """A rising map of probabilities, as JSON.

    ``parameters``: of ``logistic`` slope and intercept of the log odds (Platt 1999); of
    ``temperature`` its logarithm; of ``beta`` a, b and c of the log odds
    a ln p - b ln(1 - p) + c (Kull et al., AISTATS 2017); of ``isotonic`` the probabilities at the
    ``knots``, between which the map is straight. ``shift`` is added to the log odds that come out:
    the difference of prior log odds where probabilities are wanted for another prevalence.
    """

    method: CalibrationMethod
    parameters: tuple[float, ...] = ()
    knots: tuple[float, ...] = ()
    shift: float = 0.0

    def __call__(self, probability: ArrayLike) -> Floats:
        """Return the calibrated probabilities (n,)."""
        return shifted(self._mapped(np.asarray(probability, np.float64)), self.shift)

    def _mapped(self, scores: Floats) -> Floats:
        if self.method == "none":
            return scores
        if self.method == "isotonic":
            return np.interp(scores, self.knots, self.parameters)
        scores = scores.clip(SURE, 1 - SURE)
        if self.method == "temperature":
            return np.asarray(expit(logit(scores) / np.exp(self.parameters[0])))
        if self.method == "logistic":
            slope, intercept = self.parameters
            return np.asarray(expit(slope * logit(scores) + intercept))
        a, b, c = self.parameters
        return np.asarray(expit(a * np.log(scores) - b * np.log1p(-scores) + c))

    def blended(self, other: "Calibrator", weight: float) -> "Calibrator":
        """Return the map with ``weight`` of these parameters, and the rest of another's."""
        knots = sorted({*self.knots, *other.knots})
        own, others = (np.asarray(one(knots) if knots else one.parameters) for one in (self, other))
        mixed = weight * own + (1 - weight) * others
        return Calibrator(method=self.method, parameters=tuple(mixed.tolist()), knots=tuple(knots))


def shifted(probability: ArrayLike, shift: float) -> Floats:
    """Return probabilities (n,) whose log odds are larger by a shift; by 0 exactly the same."""
    chances = np.asarray(probability, np.float64)
    if not shift:
        return chances
    return np.asarray(expit(logit(chances.clip(SURE, 1 - SURE)) + shift))


class Calibrators(Section):
    """Calibrators of all age groups, the pooled one, and the weight of each group's own.

    ``weights``: 0 where a group's map is the pooled one, near 1 where it is nearly its own.
    """

    pooled: Calibrator
    groups: tuple[Calibrator, ...]
    weights: tuple[float, ...]

    def with_shift(self, shift: float) -> "Calibrators":
        """Return the same maps with another shift of the log odds."""
        update = {"shift": shift}
        return self.model_copy(
            update={
                "pooled": self.pooled.model_copy(update=update),
                "groups": tuple(one.model_copy(update=update) for one in self.groups),
            }
        )

    def __call__(self, probability: ArrayLike, group: ArrayLike | None = None) -> Floats:
        """Return calibrated probabilities (n,), by the pooled map where the group (n,) is -1."""
        scores = np.asarray(probability, np.float64)
        if group is None:
            return self.pooled(scores)
        groups, calibrated = np.asarray(group), self.pooled(scores)
        for index, calibrator in enumerate(self.groups):
            some = groups == index
            calibrated[some] = calibrator(scores[some])
        return calibrated


def fit_calibrator(
    truth: ArrayLike, probability: ArrayLike, method: CalibrationMethod
) -> Calibrator:
    """Return the map that fits validation images best by log loss: truth (n,), probability (n,).

    Targets are slightly inside 0 and 1 (Platt 1999), so that perfectly separated images do not
    drive the map to infinity. The identity where all images have one label.
    """
    truth, scores = np.asarray(truth, bool), np.asarray(probability, np.float64)
    if method == "none" or truth.all() or not truth.any():
        return _unchanged(method)
    target = np.where(truth, (truth.sum() + 1) / (truth.sum() + 2), 1 / ((~truth).sum() + 2))
    if method == "isotonic":
        fit = IsotonicRegression(out_of_bounds="clip").fit(scores, target)
        knots, values = fit.X_thresholds_, fit.y_thresholds_
        return Calibrator(method=method, parameters=tuple(values), knots=tuple(knots))
    scores = scores.clip(SURE, 1 - SURE)
    if method == "temperature":
        odds = logit(scores)
        found = minimize_scalar(
            lambda cold: log_loss_of(odds / np.exp(cold), target),
            bounds=(-3, 3),
            method="bounded",
            options={"xatol": 1e-6},
        )
        return Calibrator(method=method, parameters=(float(found.x),))
    odds, ones = logit(scores), np.ones_like(scores)
    terms = np.stack([odds, ones])
    start: tuple[float, ...] = (1.0, 0.0)
    bounds: list[tuple[float | None, float | None]] = [(0.0, None), (None, None)]
    if method == "beta":
        terms = np.stack([np.log(scores), -np.log1p(-scores), ones])
        start, bounds = (1.0, 1.0, 0.0), [(0.0, None), (0.0, None), (None, None)]
    found = minimize(
        lambda weights: (
            log_loss_of(weights @ terms, target),
            terms @ (expit(weights @ terms) - target) / len(target),
        ),
        x0=start,
        jac=True,
        bounds=bounds,
    )
    return Calibrator(method=method, parameters=tuple(found.x.tolist()))


def fit_calibrators(
    truth: ArrayLike,
    probability: ArrayLike,
    group: ArrayLike,
    patients: ArrayLike,
    groups: int,
    config: CalibrationConfig,
) -> Calibrators:
    """Return the map of each age group, drawn towards the pooled map where patients are few.

    ``truth``, ``probability``, ``group`` (0 ... ``groups`` - 1) and ``patients`` (n,) of validation
    images. With n patients, a group's parameters weigh n / (n + config.shrinkage), the pooled ones
    the rest; a group without images of both kinds takes the pooled map.
    """
    truth, scores = np.asarray(truth, bool), np.asarray(probability, np.float64)
    pooled = fit_calibrator(truth, scores, config.method)
    maps, weights = [], []
    for index in range(groups):
        some = np.asarray(group) == index
        weight = own_weight(truth[some], np.asarray(patients)[some], config.shrinkage)
        own = fit_calibrator(truth[some], scores[some], config.method) if weight else pooled
        maps.append(own.blended(pooled, weight))
        weights.append(weight)
    return Calibrators(pooled=pooled, groups=tuple(maps), weights=tuple(weights))


def own_weight(truth: NDArray[np.bool_], patients: NDArray[Any], shrinkage: float) -> float:
    """Return what a group's own fit weighs against the pooled one; 0 with images of one kind."""
    if truth.all() or not truth.any():
        return 0.0
    count = len(np.unique(patients))
    return count / (count + shrinkage)


def log_loss_of(odds: Floats, target: Floats) -> float:
    """Return the mean cross-entropy of log odds (n,) against targets (n,) in 0…1."""
    return float(np.mean(np.logaddexp(0, odds) - target * odds))


def _unchanged(method: CalibrationMethod) -> Calibrator:
    """Return the map that changes nothing, in the parameters of a method."""
    parameters: dict[str, tuple[float, ...]] = {
        "logistic": (1, 0),
        "temperature": (0,),
        "beta": (1, 1, 0),
    }
    if method == "isotonic":
        return Calibrator(method=method, parameters=(0, 1), knots=(0, 1))
    return Calibrator(method=method, parameters=parameters.get(method, ()))
