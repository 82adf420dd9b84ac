"""Decision curves: net benefit over threshold probabilities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pedfrac.statistics.patient_bootstrap import PatientBootstrap

CHANCES = tuple(round(0.05 * step, 2) for step in range(1, 20))


def decision_curve(
    patients: PatientBootstrap,
    truth: ArrayLike,
    probability: ArrayLike,
    chances: Sequence[float] = CHANCES,
) -> dict[str, Any]:
    """Return the net benefit of treating by the model, all or none (Vickers and Elkin 2006).

    ``truth`` and ``probability`` (n,). At each of the ``chances`` of a fracture at which one would
    just treat, pt, the net benefit of treating some images is the share of true positives less
    pt / (1 - pt) times that of false ones, as intervals: ``model``, ``all``; ``none`` is 0.
    ``gain``: how much better the model is than the better of all and none, paired by patients.
    """
    truth, scores = np.asarray(truth, bool), np.asarray(probability, np.float64)
    points: dict[str, Any] = {"chances": list(chances), "none": 0.0}
    rows = []
    for chance in chances:
        worth = np.where(truth, 1.0, -chance / (1 - chance))
        model = patients.ratio(worth * (scores >= chance), scale="plain")
        everyone = patients.ratio(worth, scale="plain")
        rows.append(
            {
                "model": patients.interval(model),
                "all": patients.interval(everyone),
                "gain": patients.difference(model, everyone)
                if everyone.value > 0
                else patients.interval(model),
            }
        )
    return points | {name: [row[name] for row in rows] for name in ("model", "all", "gain")}
