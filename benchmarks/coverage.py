"""How often 95 % intervals hold the truth: images of clustered patients, drawn with known metrics.

Run ``python benchmarks/coverage.py --help``; results stand in RESULTS.md. Not a test: a small one
is in tests/pedfrac/statistics/test_patient_bootstrap.py.
"""

import argparse
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from scipy.special import expit, logit

from pedfrac.evaluation.calibration import calibration_error, equal_mass_bins, recalibration
from pedfrac.statistics.intervals import Interval
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

BINS = 10


@dataclass(frozen=True)
class Images:
    """Images of one draw: two models whose scores err together, and the first one's probability."""

    patient: Any
    truth: Any
    first: Any
    second: Any
    probability: Any


def draw(random: Any, patients: int, shift: float, sureness: float, views: int = 4) -> Images:
    """Draw 1 to ``views`` images of each patient, of whom 65 % have a fracture that most show.

    Half of the scores' variance is the patient's, and half of that is shared by both models. The
    area of the first model is that of two normal distributions ``shift`` apart; the second is as
    good. ``sureness`` 1: probabilities mean what they say; above: they are too sure.
    """
    owner = np.repeat(np.arange(patients), random.integers(1, views + 1, patients))
    truth = (random.random(patients) < 0.65)[owner] ^ (random.random(len(owner)) < 0.1)

    def errors() -> Any:
        return random.normal(size=patients)[owner] + random.normal(size=len(owner))

    shared = errors()
    first, second = (shift * (truth - 0.5) + (shared + errors()) / 2 for _ in range(2))
    probability = expit(sureness * (shift * first + logit(0.62)))
    return Images(owner, truth, first, second, probability)


def metrics(images: Images, resamples: int, seed: int) -> dict[str, Interval]:
    """Return the interval of each metric of the images."""
    patients = PatientBootstrap(images.patient, resamples, seed)
    truth, first, probability = images.truth, images.first, images.probability
    call, other = first >= 0, images.second >= 0
    sure = probability.clip(1e-7, 1 - 1e-7)
    surprise = -np.where(truth, np.log(sure), np.log1p(-sure))
    estimates = {
        "Brier score": patients.ratio((probability - truth) ** 2, scale="log"),
        "log loss": patients.ratio(surprise, scale="log"),
        "observed/expected": patients.ratio(truth, probability, scale="log"),
        "calibration intercept": recalibration(patients, truth, probability, slope=False),
        "calibration slope": recalibration(patients, truth, probability, slope=True),
    }
    found = {
        "AUROC": patients.auroc_interval(truth, first),
        "sensitivity": patients.rate_interval(call, truth),
        "specificity": patients.rate_interval(~call, ~truth),
        "F1": patients.f1_interval(truth, call),
        "average precision": patients.average_precision_interval(truth, first),
        **{name: patients.interval(estimate) for name, estimate in estimates.items()},
        "AUROC, difference": patients.auroc_difference(truth, first, images.second),
        "sensitivity, difference": patients.rate_difference(call, other, truth),
        "Brier score, difference": patients.brier_difference(
            truth, expit(first), expit(images.second)
        ),
    }
    if resamples:
        bins = equal_mass_bins(probability, BINS)
        found["ECE"] = calibration_error(patients, truth, probability, bins)
    return found


@cache
def true_values(shift: float, sureness: float, views: int) -> dict[str, float]:
    """Return the metrics of a population, from very many images."""
    images = draw(np.random.default_rng(10**6), 400_000, shift, sureness, views)
    # two patients: nobody asks for the uncertainty here
    one = replace(images, patient=np.arange(len(images.truth)) % 2)
    return {name: found.value for name, found in metrics(one, 1, 0).items()}


def measure(
    patients: int,
    shift: float,
    sureness: float,
    views: int,
    draws: int,
    resamples: int,
) -> dict[str, tuple[float, float, float]]:
    """Return for each metric how often the interval holds the truth, lies above it, and below it.

    A draw in which a metric has no interval does not count.
    """
    truth = true_values(shift, sureness, views)
    sides = defaultdict(list)
    for seed in range(draws):
        images = draw(np.random.default_rng((seed, patients)), patients, shift, sureness, views)
        for name, found in metrics(images, resamples, seed).items():
            if found.low is not None:
                sides[name].append((found.low > truth[name], found.high < truth[name]))
    means = {name: np.mean(pairs, axis=0) for name, pairs in sides.items()}
    return {name: (1 - above - below, above, below) for name, (above, below) in means.items()}


def speed() -> None:
    """Print how long all metrics of 3,000 images take on one core."""
    images = draw(np.random.default_rng(0), 1200, 2.1, 1.0)
    start = time.process_time()
    metrics(images, 2000, 0)
    took = time.process_time() - start
    print(f"{len(images.truth)} images, 2,000 resamples: {took:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--patients", type=int, nargs="+", default=[11, 40, 100, 250, 500])
    parser.add_argument("--shifts", type=float, nargs="+", default=[1.2, 2.1, 3.07])
    parser.add_argument("--sureness", type=float, default=1.5)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    if options.speed:
        return speed()
    for shift in options.shifts:
        for count in options.patients:
            found = measure(
                count, shift, options.sureness, options.views, options.draws, options.resamples
            )
            for name, (inside, above, below) in found.items():
                print(f"{shift},{count},{name},{inside:.3f},{above:.3f},{below:.3f}", flush=True)
    return None


if __name__ == "__main__":
    main()
