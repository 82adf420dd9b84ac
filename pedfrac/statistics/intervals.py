"""Intervals: the bounds of a metric, from its values with one patient left out.

Not here: any metric (classification), and how patients are left out (``PatientBootstrap``).
"""

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy import special, stats

from pedfrac.statistics.result import Result

Floats = NDArray[np.float64]
Scale = Literal["logit", "log", "plain"]
LEVEL = 0.95
TAIL = (1 - LEVEL) / 2


class Interval(Result):
    """A metric with its 95 % interval over patients."""

    value: float | None
    low: float | None
    high: float | None
    method: str | None = Field(None, description="How the bounds came about")
    reason: str | None = Field(None, description="Why value or bounds are missing")

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Low and high, None where they are missing."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def is_above(self, value: float) -> bool:
        """Return whether the whole interval lies above a value; without bounds nothing is shown."""
        return self.low is not None and self.low > value

    def is_below(self, value: float) -> bool:
        """Return whether the whole interval lies below a value; without bounds nothing is shown."""
        return self.high is not None and self.high < value

    def excludes(self, value: float) -> bool:
        """Return whether a value lies outside the interval; without bounds nothing is shown."""
        return self.is_above(value) or self.is_below(value)

    def bounded(self, low: float, high: float, method: str) -> Self:
        """Return the interval with other bounds."""
        return self.model_copy(update={"low": float(low), "high": float(high), "method": method})


class Contrast(Interval):
    """How much larger a metric is on some images than on others; p: of no difference."""

    p: float | None = None


@dataclass(frozen=True)
class Estimate:
    """A metric with all that its uncertainty is made of.

    ``left_out`` (n,): the metric without each of the n patients, NaN where there is none.
    ``patients``: on how many patients the metric rests, the fewer of two kinds where it needs two.
    ``scale``: where its errors are nearly symmetrical; ``logit`` for shares and areas, which lie
    in [0, 1], ``log`` for what is positive. ``reason``: why the metric is NaN, if it is.
    """

    value: float
    left_out: Floats
    patients: int
    scale: Scale = "logit"
    reason: str = "undefined on these images"

    @property
    def deviations(self) -> Floats:
        """How far each patient moves the metric, (n,): the metric less itself without that one."""
        return self.value - self.left_out


def missing(reason: str) -> Interval:
    """Return the interval of a metric that does not exist."""
    return Interval(value=None, low=None, high=None, reason=reason)


def interval_of(estimate: Estimate) -> Interval:
    """Return value, low and high (95 %) of an estimate, and the method of its bounds.

    ``jackknife``: Student's t on the estimate's scale, with the variance of the metrics that leave
    one patient out and one degree of freedom less than patients. For areas that is the method of
    DeLong (Biometrics 1988) for clustered data (Obuchowski, Biometrics 1997) on the logit scale.
    A share or an area of exactly 0 or 1 has no spread to learn from: its bounds are then
    ``exact``, those of Clopper and Pearson (Biometrika 1934) with patients as trials.
    """
    if np.isnan(estimate.value):
        return missing(estimate.reason)
    if len(estimate.left_out) < 2:
        return _unbounded(estimate, "one patient")
    if estimate.scale == "logit" and estimate.value in (0, 1):
        return _exact(estimate)
    return _jackknife(estimate)


def difference_of(a: Estimate, b: Estimate) -> Interval:
    """Return the interval of ``a - b``, two metrics of the same patients, paired by them.

    Where no patient tells the two apart, the bounds are those of the share of patients who might:
    0 of n were seen.
    """
    if np.isnan(a.value) or np.isnan(b.value):
        return missing(a.reason if np.isnan(a.value) else b.reason)
    difference = Estimate(
        a.value - b.value, a.left_out - b.left_out, min(a.patients, b.patients), "plain"
    )
    found = interval_of(difference)
    if found.bounds and not np.any(difference.deviations):
        room = 1 - TAIL ** (1 / difference.patients)
        found = found.bounded(difference.value - room, difference.value + room, "exact")
    if found.bounds and a.scale == b.scale == "logit":
        low, high = found.bounds
        found = found.model_copy(update={"low": max(low, -1.0), "high": min(high, 1.0)})
    return found


def contrast_of(a: Estimate, b: Estimate) -> Contrast:
    """Return the interval of ``a - b``, metrics of two parts of the images, and its ``p``.

    Both parts may hold images of one patient. The interval is made of those of the two metrics by
    the method of variance estimates recovery (Zou and Donner, Stat Med 2008), since one part may
    be small and its metric near 0 or 1. ``p``: that of a two-sided t test on the metrics' scale,
    degrees of freedom by Welch and Satterthwaite, with half a hit and half a miss added to a share
    of 0 or 1; null where a metric has no standard error.
    """
    first, second = interval_of(a), interval_of(b)
    if not first.bounds or not second.bounds:
        without = second if first.bounds else first
        return Contrast(value=None, low=None, high=None, reason=without.reason or "has no bounds")
    (place_a, error_a, parts_a), (place_b, error_b, parts_b) = _place(a), _place(b)
    together, both = float(parts_a @ parts_b), error_a * error_b
    alike = float(np.clip(together / both, -1, 1)) if both > 0 else 0.0
    change = float(a.value) - float(b.value)
    down = (a.value - first.bounds[0], second.bounds[1] - b.value)
    up = (first.bounds[1] - a.value, b.value - second.bounds[0])
    reach = [np.sqrt(max(x * x + y * y - 2 * alike * x * y, 0)) for x, y in (down, up)]
    return Contrast(
        value=change,
        low=float(change - reach[0]),
        high=float(change + reach[1]),
        method="MOVER",
        p=_p_value(place_a - place_b, (error_a, error_b), together, (a, b)),
    )


def holm(p_values: ArrayLike) -> Floats:
    """Return p values corrected for their number (n,) by Holm's method (Scand J Stat 1979)."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected


def standard_error(estimate: Estimate) -> float:
    """Return the jackknife's standard error, NaN where it needs a patient who cannot be left out.

    Leaving out the only patient of a kind leaves no metric; two such patients are the least.
    """
    if estimate.patients < 2 or np.isnan(estimate.left_out).any():
        return float("nan")
    spread = np.square(estimate.deviations).sum() * (1 - 1 / estimate.patients)
    return float(np.sqrt(spread))


def degrees_of_freedom(estimate: Estimate) -> int:
    """Return the degrees of freedom of the jackknife's variance."""
    return max(estimate.patients - 1, 1)


def on_scale(value: Any, scale: Scale) -> Any:
    """Return a value on the scale on which its errors are nearly symmetrical."""
    return {"logit": special.logit, "log": np.log, "plain": lambda x: x}[scale](value)


def slope_of(value: float, scale: Scale) -> float:
    """Return by how much the scale rises where the value rises by one."""
    return {"logit": lambda: 1 / (value * (1 - value)), "log": lambda: 1 / value}.get(
        scale, lambda: 1.0
    )()


def _place(estimate: Estimate) -> tuple[float, float, Floats]:
    """Return value, standard error, and each patient's part in it (n,), on the estimate's scale."""
    value, parts = estimate.value, np.nan_to_num(estimate.deviations)
    if estimate.scale == "logit" and value in (0, 1):
        value = (value * estimate.patients + 0.5) / (estimate.patients + 1)
        error, parts = _trials_error(value, estimate.patients), np.zeros_like(parts)
    else:
        error = standard_error(estimate) or _trials_error(value, estimate.patients)
    if estimate.scale == "log" and value <= 0:
        return np.nan, np.nan, parts
    slope = slope_of(value, estimate.scale)
    shrunk = np.sqrt(1 - 1 / estimate.patients)
    return float(on_scale(value, estimate.scale)), error * slope, parts * slope * shrunk


def _trials_error(share: float, trials: int) -> float:
    """Return the standard error of a share of independent trials."""
    return float(np.sqrt(max(share * (1 - share), 0) / trials))


def _p_value(
    change: float,
    errors: tuple[float, float],
    together: float,
    estimates: tuple[Estimate, Estimate],
) -> float | None:
    squares = np.square(errors)
    variance = squares.sum() - 2 * together
    if not variance > 0:  # NaN, or two metrics that move as one
        return None
    freedom = np.array([degrees_of_freedom(one) for one in estimates])
    welch = squares.sum() ** 2 / (squares**2 / freedom).sum()
    return float(2 * stats.t.sf(abs(change) / np.sqrt(variance), welch))


def _unbounded(estimate: Estimate, reason: str) -> Interval:
    return Interval(value=float(estimate.value), low=None, high=None, reason=reason)


def _jackknife(estimate: Estimate) -> Interval:
    error = standard_error(estimate)
    if np.isnan(error):
        lonely = estimate.patients < 2
        return _unbounded(
            estimate, "rests on one patient" if lonely else "undefined without some patients"
        )
    if error == 0 and estimate.scale == "logit":
        # Patients who all agree by chance: the variance that a share of so many trials has.
        error = _trials_error(estimate.value, estimate.patients)
    if estimate.scale == "log" and estimate.value <= 0:
        return _unbounded(estimate, "has no logarithm")
    place = on_scale(estimate.value, estimate.scale)
    reach = (
        stats.t.ppf(1 - TAIL, degrees_of_freedom(estimate))
        * error
        * slope_of(estimate.value, estimate.scale)
    )
    back = {"logit": special.expit, "log": np.exp, "plain": lambda x: x}[estimate.scale]
    return _bounded(estimate, back(place - reach), back(place + reach), "jackknife")


def _exact(estimate: Estimate) -> Interval:
    bound = TAIL ** (1 / max(estimate.patients, 1))
    low, high = (bound, 1.0) if estimate.value else (0.0, 1 - bound)
    return _bounded(estimate, low, high, "exact")


def _bounded(estimate: Estimate, low: float, high: float, method: str) -> Interval:
    return Interval(value=float(estimate.value), low=float(low), high=float(high), method=method)
