"""Exact bounds of shares: Clopper and Pearson (Biometrika 1934), one-sided."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv

from pedfrac.statistics.intervals import Floats


def lower_bounds(share: ArrayLike, trials: ArrayLike, confidence: float) -> Floats:
    """Return the one-sided lower bounds of observed shares (n,) of some numbers of trials (n,).

    With probability ``confidence`` or more a bound lies below the true share. Trials may be
    patients while the share is one of images: the hits are then the share of that many trials, and
    need not be whole. 0 where there are no trials.
    """
    hits = np.asarray(share, np.float64) * np.asarray(trials, np.float64)
    misses = np.asarray(trials, np.float64) - hits
    bound = betaincinv(np.maximum(hits, 1e-12), misses + 1, 1 - confidence)
    return np.asarray(np.where(hits > 0, bound, 0.0))
