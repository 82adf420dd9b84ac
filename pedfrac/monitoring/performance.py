"""Performance in a window whose labels are known, against the reference."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pedfrac.evaluation.calibration import calibration_error, equal_mass_bins
from pedfrac.monitoring.variables import RESAMPLES, Findings, Pair
from pedfrac.statistics.intervals import Estimate, Interval, missing
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

CALIBRATION_BINS = 10
FEWEST_PATIENTS = 10  # of each kind, to compare metrics of performance


def performance_tests(pair: Pair) -> Iterator[Findings]:
    """Yield the falls of metrics that need labels, where there are enough of them."""
    labelled = pair.images["fractured"].notna().to_numpy()
    ours, theirs = labelled & pair.is_window, labelled & ~pair.is_window
    if any(_too_few(pair, some) for some in (ours, theirs)):
        return
    patients = pair.bootstrap()
    for name, (title, said, estimate) in _METRICS.items():
        first, second = (estimate(patients, pair, some) for some in (ours, theirs))
        change = patients.contrast(first, second)
        if change.value is None or change.p is None:
            continue
        rise = change.value
        worse = abs(rise) if name == "calibration" else -rise
        yield {
            "name": name,
            "title": title,
            "kind": "labels",
            "test": "t over patients",
            "within": [],
            "p": change.p,
            "size": max(0.0, float(worse)),
            "words": said[rise > 0] if isinstance(said, tuple) else said,
        }


def _too_few(pair: Pair, some: NDArray[np.bool_]) -> bool:
    images = pair.images[some]
    counts = [
        images.loc[images["fractured"] == kind, "patient"].nunique() for kind in (True, False)
    ]
    return min(counts) < FEWEST_PATIENTS


def _auroc(patients: PatientBootstrap, pair: Pair, some: NDArray[np.bool_]) -> Estimate:
    return patients.area(_truth(pair), pair.images["probability"], some)


def _sensitivity(patients: PatientBootstrap, pair: Pair, some: NDArray[np.bool_]) -> Estimate:
    return patients.rate(pair.images["fracture_called"], some & _truth(pair))


def _specificity(patients: PatientBootstrap, pair: Pair, some: NDArray[np.bool_]) -> Estimate:
    return patients.rate(~pair.images["fracture_called"], some & ~_truth(pair))


def _calibration(patients: PatientBootstrap, pair: Pair, some: NDArray[np.bool_]) -> Estimate:
    """Return by how much more images are fractured than their probabilities say."""
    gaps = np.where(some, _truth(pair) - pair.images["probability"].to_numpy(), 0)
    return patients.ratio(gaps, some, scale="plain")


_METRICS: dict[str, tuple[str, Any, Any]] = {
    "auroc": ("AUROC", "fractured and normal images are told apart less well", _auroc),
    "sensitivity": ("Sensitivity", "more fractured images are missed", _sensitivity),
    "specificity": ("Specificity", "more normal images are called fractured", _specificity),
    "calibration": (
        "Fractured images less those expected",
        ("probabilities have become too high", "probabilities have become too low"),
        _calibration,
    ),
}


def _truth(pair: Pair) -> NDArray[np.bool_]:
    return (pair.images["fractured"] == 1).to_numpy()


def measured_performance(pair: Pair) -> Findings | None:
    """Return metrics of labelled images, of the window, the reference, and their difference."""
    labelled = pair.images["fractured"].notna().to_numpy()
    if not (labelled & pair.is_window).any():
        return None
    patients = pair.bootstrap()
    sides = {"window": labelled & pair.is_window, "reference": labelled & ~pair.is_window}
    found: Findings = {}
    for name, (title, _, estimate) in _METRICS.items():
        parts = [estimate(patients, pair, some) for some in sides.values()]
        row = {side: patients.interval(one) for side, one in zip(sides, parts, strict=True)}
        found[name] = {"title": title, **row, "change": patients.contrast(*parts)}
    found["ece"] = {
        "title": "Expected calibration error",
        **{side: _ece(pair, some) for side, some in sides.items()},
        "change": missing("not compared: chance alone makes it larger in fewer images"),
    }
    return found


def _ece(pair: Pair, some: NDArray[np.bool_]) -> Interval:
    images = pair.images[some]
    patients = PatientBootstrap(images["patient"], RESAMPLES, pair.config.seed)
    scores = images["probability"].to_numpy(np.float64)
    bins = equal_mass_bins(scores, CALIBRATION_BINS)
    return calibration_error(patients, images["fractured"] == 1, scores, bins)
