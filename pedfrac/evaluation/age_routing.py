"""Routing: what it costs that the age is told from the image, and the images whose age is in doubt.

Not here: how well the age classifier does as such (evaluation), and scoring itself (bundle).
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from pedfrac.age_groups import AgeGroups
from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.errors import PedfracError
from pedfrac.evaluation.rows import Difference, difference
from pedfrac.statistics.intervals import Floats, Interval
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.statistics.result import Result

RECORDED, PREDICTED, SOFT = "recorded age", "predicted age", "soft"
LISTED = 50  # images in doubt that are named; the others are counted


class RouteMetrics(Result):
    """Metrics by one way to choose among the specialists."""

    auroc: Interval
    sensitivity: Interval
    specificity: Interval
    accuracy: Interval
    change: Difference | None = Field(None, description="Gain on recorded age, paired")


class RouteErrors(Result):
    """Images sent to a wrong specialist, and what became of their calls."""

    images: int
    share: Interval
    changed: Interval
    harmed: Interval
    helped: Interval


class Doubtful(Result):
    """An image whose recorded age and looks disagree."""

    filestem: str
    patient_id: int
    age: float
    recorded: str
    seen: str
    probability_recorded: float
    probability_seen: float
    call_changed: bool


class GroupRouting(Result):
    """The share of an age group's images sent to a wrong specialist."""

    name: str
    wrong: Interval


class Routing(Result):
    """What it costs that the age is told from the image."""

    images: int
    patients: int
    unrecorded: int
    routes: dict[str, RouteMetrics]
    errors: dict[str, RouteErrors]
    groups: list[GroupRouting]
    doubtful_images: int
    doubtful: list[Doubtful]


class _Route:
    """Score, threshold and call of each image by one way to choose its specialist."""

    def __init__(self, specialists: Floats, thresholds: Floats, weights: Floats):
        self.score = (specialists * weights).sum(axis=1)
        self.call = self.score >= weights @ thresholds


def routing_metrics(
    predictions: pd.DataFrame, ages: AgeGroups, thresholds: list[float], config: EvaluationConfig
) -> Routing:
    """Return the metrics of the specialists under each way to choose among them.

    ``predictions``: one row an image: filestem, patient_id, age, fracture_visible, group
    (recorded), the age classifier's probabilities ``age_0``… and every specialist's probability of
    a fracture ``specialist_0``…; ``thresholds`` of the specialists. Images without a recorded
    group are left out and counted: ``unrecorded``.

    ``routes``: metrics by ``recorded age``; by ``predicted age``, the most probable group's
    specialist; and by ``soft`` routing, in which scores and thresholds are means of all
    specialists' weighted by the age probabilities. ``change``: what each gains on recorded age,
    paired by patients. ``errors``: images sent to a wrong specialist, to a neighbouring age group's
    (``adjacent``) and to another (``far``): their share, and how often the call is thereby another
    (``changed``), wrong instead of right (``harmed``) or right instead of wrong (``helped``).
    ``groups``: the share sent wrong, by recorded group. ``doubtful``: images whose recorded group
    is less probable than ``config.age_doubt``, the least probable first: age or image may be
    another's. Raises PedfracError that names a missing column, or an image with a score that is no
    number.
    """
    count = len(ages)
    specialists, probabilities = (
        _columns(predictions, f"{name}_", count) for name in ("specialist", "age")
    )
    recorded = predictions["group"].to_numpy(dtype=np.int64)
    known = recorded >= 0
    images, recorded = predictions[known], recorded[known]
    specialists, probabilities = specialists[known], probabilities[known]
    seen = probabilities.argmax(axis=1)
    truth = images["fracture_visible"].to_numpy(dtype=bool)
    patients = PatientBootstrap(images["patient_id"], config.resamples, config.seed)
    limits, every = np.asarray(thresholds, np.float64), np.eye(count)
    routes = {
        name: _Route(specialists, limits, weights)
        for name, weights in (
            (RECORDED, every[recorded]),
            (PREDICTED, every[seen]),
            (SOFT, probabilities),
        )
    }
    doubtful = _doubtful(images, probabilities, recorded, seen, routes, ages, config.age_doubt)
    return Routing(
        images=len(images),
        patients=patients.count,
        unrecorded=int((~known).sum()),
        routes={name: _metrics(patients, truth, name, routes) for name in routes},
        errors=_errors(patients, truth, np.abs(seen - recorded), routes),
        groups=[
            GroupRouting(
                name=name, wrong=patients.rate_interval(seen != recorded, recorded == index)
            )
            for index, name in enumerate(ages.names)
        ],
        doubtful_images=len(doubtful),
        doubtful=doubtful[:LISTED],
    )


def _columns(predictions: pd.DataFrame, prefix: str, count: int) -> Floats:
    names = [f"{prefix}{index}" for index in range(count)]
    missing = [name for name in names if name not in predictions]
    if missing:
        raise PedfracError(
            f"predictions: columns {', '.join(missing)} are missing; what routing costs needs "
            f"{names[0]} to {names[-1]}, one for each age group"
        )
    values = predictions[names].to_numpy(dtype=np.float64)
    if (bad := ~np.isfinite(values).all(axis=1)).any():
        image = predictions["filestem"].to_numpy()[bad][0]
        raise PedfracError(f"image {image}: {names[0]} to {names[-1]} must all be numbers")
    return values


def _metrics(
    patients: PatientBootstrap, truth: NDArray[np.bool_], name: str, routes: dict[str, _Route]
) -> RouteMetrics:
    """Return a route's metrics, and how much higher they are than those by recorded age."""
    route = routes[name]
    return RouteMetrics(
        auroc=patients.auroc_interval(truth, route.score),
        sensitivity=patients.rate_interval(route.call, truth, "no fractured images"),
        specificity=patients.rate_interval(~route.call, ~truth, "no normal images"),
        accuracy=patients.rate_interval(route.call == truth),
        change=None
        if name == RECORDED
        else difference(
            patients,
            truth,
            (route.score, routes[RECORDED].score),
            (route.call, routes[RECORDED].call),
        ),
    )


def _errors(
    patients: PatientBootstrap,
    truth: NDArray[np.bool_],
    distance: NDArray[np.int64],
    routes: dict[str, _Route],
) -> dict[str, RouteErrors]:
    """Return how often images go to a wrong specialist, and what then becomes of their calls."""
    known, used = routes[RECORDED].call, routes[PREDICTED].call
    kinds = {"all": distance > 0, "adjacent": distance == 1, "far": distance > 1}
    none = "no image was sent to such a specialist"
    return {
        name: RouteErrors(
            images=int(wrong.sum()),
            share=patients.rate_interval(wrong),
            changed=patients.rate_interval(known != used, wrong, none),
            harmed=patients.rate_interval((known == truth) & (used != truth), wrong, none),
            helped=patients.rate_interval((known != truth) & (used == truth), wrong, none),
        )
        for name, wrong in kinds.items()
    }


def _doubtful(
    images: pd.DataFrame,
    probabilities: Floats,
    recorded: NDArray[np.int64],
    seen: NDArray[np.int64],
    routes: dict[str, _Route],
    ages: AgeGroups,
    limit: float,
) -> list[Doubtful]:
    rows = np.arange(len(images))
    own = probabilities[rows, recorded]
    doubtful = rows[(own < limit) & (seen != recorded)]
    doubtful = doubtful[np.argsort(own[doubtful], kind="stable")]
    return [
        Doubtful(
            filestem=str(images["filestem"].iloc[row]),
            patient_id=int(images["patient_id"].iloc[row]),
            age=float(images["age"].iloc[row]),
            recorded=ages.name(int(recorded[row])),
            seen=ages.name(int(seen[row])),
            probability_recorded=float(own[row]),
            probability_seen=float(probabilities[row, seen[row]]),
            call_changed=bool(routes[RECORDED].call[row] != routes[PREDICTED].call[row]),
        )
        for row in doubtful.tolist()
    ]
