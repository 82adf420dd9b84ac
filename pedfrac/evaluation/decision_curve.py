"""Decision curves: net benefit over threshold probabilities."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from pedfrac.statistics.intervals import Interval
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.statistics.result import Result

CHANCES = tuple(round(0.05 * step, 2) for step in range(1, 20))


class Decision(Result):
    """Net benefit per image of treating by the model, all, or none, at each chance."""

    chances: list[float]
    none: float
    model: list[Interval]
    all: list[Interval]
    gain: list[Interval]


def decision_curve(
    patients: PatientBootstrap,
    truth: ArrayLike,
    probability: ArrayLike,
    chances: Sequence[float] = CHANCES,
) -> Decision:
    """Return the net benefit of treating by the model, all or none (Vickers and Elkin 2006).

    ``truth`` and ``probability`` (n,). At each of the ``chances`` of a fracture at which one would
    just treat, pt, the net benefit of treating some images is the share of true positives less
    pt / (1 - pt) times that of false ones, as intervals: ``model``, ``all``; ``none`` is 0.
    ``gain``: how much better the model is than the better of all and none, paired by patients.
    """
    truth, scores = np.asarray(truth, bool), np.asarray(probability, np.float64)
    by_model, by_all, gains = [], [], []
    for chance in chances:
        worth = np.where(truth, 1.0, -chance / (1 - chance))
        model = patients.ratio(worth * (scores >= chance), scale="plain")
        everyone = patients.ratio(worth, scale="plain")
        by_model.append(patients.interval(model))
        by_all.append(patients.interval(everyone))
        gains.append(patients.difference(model, everyone) if everyone.value > 0 else by_model[-1])
    return Decision(chances=list(chances), none=0.0, model=by_model, all=by_all, gain=gains)
