"""Intervals: the bounds of a metric, from its values with one patient left out and by resampling.

Not here: any metric (metrics), and how patients are left out or drawn (``PatientBootstrap``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

Floats = NDArray[np.float64]
Interval = dict[str, Any]
Method = Literal["jackknife", "bca", "percentile"]
Scale = Literal["logit", "log", "plain"]
LEVEL = 0.95
TAIL = (1 - LEVEL) / 2


@dataclass(frozen=True)
class Estimate:
    """A metric with all that its uncertainty is made of.

    ``left_out`` (n,): the metric without each of the n patients, NaN where there is none.
    ``resample``: draws the metric of each resample of patients (r,), NaN where there is none.
    ``patients``: on how many patients the metric rests, the fewer of two kinds where it needs two.
    ``scale``: where its errors are nearly symmetrical; ``logit`` for shares and areas, which lie
    in [0, 1], ``log`` for what is positive. ``reason``: why the metric is NaN, if it is.
    """

    value: float
    left_out: Floats
    resample: Callable[[], Floats]
    patients: int
    scale: Scale = "logit"
    reason: str = "undefined on these images"

    @property
    def deviations(self) -> Floats:
        """How far each patient moves the metric, (n,): the metric less itself without that one."""
        return self.value - self.left_out


def missing(reason: str) -> Interval:
    """Return the interval of a metric that does not exist."""
    return {"value": None, "low": None, "high": None, "reason": reason}


def interval_of(estimate: Estimate, method: Method) -> Interval:
    """Return value, low and high (95 %) of an estimate, and the method of its bounds.

    ``jackknife``: Student's t on the estimate's scale, with the variance of the metrics that leave
    one patient out and one degree of freedom less than patients. For areas that is the method of
    DeLong (Biometrics 1988) for clustered data (Obuchowski, Biometrics 1997) on the logit scale.
    ``bca``: bias-corrected and accelerated (Efron, JASA 1987). ``percentile``: quantiles of the
    resamples. A share or an area of exactly 0 or 1 has no spread to learn from: its bounds are
    then ``exact``, those of Clopper and Pearson (Biometrika 1934) with patients as trials.
    """
    if np.isnan(estimate.value):
        return missing(estimate.reason)
    found: Interval = {"value": float(estimate.value), "low": None, "high": None}
    if len(estimate.left_out) < 2:
        return found | {"reason": "one patient"}
    if estimate.scale == "logit" and estimate.value in (0, 1):
        return found | _exact(estimate)
    bounds = _jackknife(estimate) if method == "jackknife" else _resampled(estimate, method)
    return found | bounds


def difference_of(a: Estimate, b: Estimate, method: Method) -> Interval:
    """Return the interval of ``a - b``, two metrics of the same patients, paired by them.

    With the jackknife, where no patient tells the two apart, the bounds are those of the share of
    patients who might: 0 of n were seen.
    """
    if np.isnan(a.value) or np.isnan(b.value):
        return missing(a.reason if np.isnan(a.value) else b.reason)
    difference = Estimate(
        a.value - b.value,
        a.left_out - b.left_out,
        lambda: a.resample() - b.resample(),
        min(a.patients, b.patients),
        "plain",
    )
    found = interval_of(difference, method)
    if method == "jackknife" and found["low"] is not None and not np.any(difference.deviations):
        room = 1 - TAIL ** (1 / difference.patients)
        found |= {"low": found["value"] - room, "high": found["value"] + room, "method": "exact"}
    if found["low"] is not None and a.scale == b.scale == "logit":
        found |= {"low": max(found["low"], -1.0), "high": min(found["high"], 1.0)}
    return found


def contrast_of(a: Estimate, b: Estimate, method: Method) -> Interval:
    """Return the interval of ``a - b``, metrics of two parts of the images, and its ``p``.

    Both parts may hold images of one patient. The interval is made of those of the two metrics by
    the method of variance estimates recovery (Zou and Donner, Stat Med 2008), since one part may
    be small and its metric near 0 or 1. ``p``: that of a two-sided t test on the metrics' scale,
    degrees of freedom by Welch and Satterthwaite, with half a hit and half a miss added to a share
    of 0 or 1; null where a metric has no standard error.
    """
    first, second = interval_of(a, method), interval_of(b, method)
    for part in (first, second):
        if part["low"] is None:
            return missing(part.get("reason", "has no bounds")) | {"p": None}
    (place_a, error_a, parts_a), (place_b, error_b, parts_b) = _place(a), _place(b)
    together, both = float(parts_a @ parts_b), error_a * error_b
    alike = float(np.clip(together / both, -1, 1)) if both > 0 else 0.0
    change = first["value"] - second["value"]
    down = (first["value"] - first["low"], second["high"] - second["value"])
    up = (first["high"] - first["value"], second["value"] - second["low"])
    reach = [np.sqrt(max(x * x + y * y - 2 * alike * x * y, 0)) for x, y in (down, up)]
    bounds = _bounds((change - reach[0], change + reach[1]), "MOVER")
    p = _p_value(place_a - place_b, (error_a, error_b), together, (a, b))
    return {"value": change} | bounds | {"p": p}


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


def _jackknife(estimate: Estimate) -> Interval:
    error = standard_error(estimate)
    if np.isnan(error):
        lonely = estimate.patients < 2
        return {"reason": "rests on one patient" if lonely else "undefined without some patients"}
    if error == 0 and estimate.scale == "logit":
        # Patients who all agree by chance: the variance that a share of so many trials has.
        error = _trials_error(estimate.value, estimate.patients)
    if estimate.scale == "log" and estimate.value <= 0:
        return {"reason": "has no logarithm"}
    place = on_scale(estimate.value, estimate.scale)
    reach = (
        stats.t.ppf(1 - TAIL, degrees_of_freedom(estimate))
        * error
        * slope_of(estimate.value, estimate.scale)
    )
    back = {"logit": special.expit, "log": np.exp, "plain": lambda x: x}[estimate.scale]
    return _bounds((back(place - reach), back(place + reach)), "jackknife")


def _resampled(estimate: Estimate, method: Method) -> Interval:
    samples = estimate.resample()
    if not len(samples):
        return {}
    defined = samples[~np.isnan(samples)]
    if len(defined) * 2 < len(samples):
        return {"reason": "undefined in most resamples of the patients"}
    shares = np.array([TAIL, 1 - TAIL])
    if method == "bca":
        shares = bca_shares(estimate.value, defined, estimate.deviations)
    return _bounds(np.quantile(defined, shares), method)


def bca_shares(value: float, samples: Floats, deviations: Floats) -> Floats:
    """Return the quantiles (2,) of the resamples that are the bounds by Efron's BCa.

    ``samples`` (r,) of a metric that is ``value``, ``deviations`` (n,) from the jackknife.
    """
    below = (np.mean(samples < value) + np.mean(samples <= value)) / 2
    rare = 1 / (len(samples) + 1)
    bias = stats.norm.ppf(np.clip(below, rare, 1 - rare))
    pull = deviations[~np.isnan(deviations)]
    spread = np.square(pull).sum() ** 1.5
    acceleration = (pull**3).sum() / (6 * spread) if spread > 0 else 0.0
    place = bias + stats.norm.ppf([TAIL, 1 - TAIL])
    # With very few patients the correction may run away: it never turns the bounds about.
    return np.asarray(stats.norm.cdf(bias + place / np.maximum(1 - acceleration * place, 0.1)))


def _exact(estimate: Estimate) -> Interval:
    bound = TAIL ** (1 / max(estimate.patients, 1))
    return _bounds((bound, 1.0) if estimate.value else (0.0, 1 - bound), "exact")


def _bounds(pair: Any, method: str) -> Interval:
    return {"low": float(pair[0]), "high": float(pair[1]), "method": method}
