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
FEWEST_PATIENTS = 10  # of each kind, to compare figures of performance


def performance_tests(pair: Pair) -> Iterator[Findings]:
    """Yield the falls of figures that need labels, where there are enough of them."""
    labelled = pair.films["fractured"].notna().to_numpy()
    ours, theirs = labelled & pair.is_window, labelled & ~pair.is_window
    if any(_too_few(pair, some) for some in (ours, theirs)):
        return
    patients = pair.bootstrap()
    for name, (title, said, estimate) in _FIGURES.items():
        first, second = (estimate(patients, pair, some) for some in (ours, theirs))
        change = patients.contrast(first, second)
        if change["value"] is None or change["p"] is None:
            continue
        rise = change["value"]
        worse = abs(rise) if name == "calibration" else -rise
        yield {
            "name": name,
            "title": title,
            "kind": "labels",
            "test": "t over patients",
            "within": [],
            "p": change["p"],
            "size": max(0.0, float(worse)),
            "words": said[rise > 0] if isinstance(said, tuple) else said,
        }


def _too_few(pair: Pair, some: NDArray[np.bool_]) -> bool:
    films = pair.films[some]
    counts = [films.loc[films["fractured"] == kind, "patient"].nunique() for kind in (True, False)]
    return min(counts) < FEWEST_PATIENTS


def _auroc(patients: PatientBootstrap, pair: Pair, some: NDArray[np.bool_]) -> Estimate:
    return patients.area(_truth(pair), pair.films["probability"], some)


def _sensitivity(patients: PatientBootstrap, pair: Pair, some: NDArray[np.bool_]) -> Estimate:
    return patients.rate(pair.films["fracture_called"], some & _truth(pair))


def _specificity(patients: PatientBootstrap, pair: Pair, some: NDArray[np.bool_]) -> Estimate:
    return patients.rate(~pair.films["fracture_called"], some & ~_truth(pair))


def _calibration(patients: PatientBootstrap, pair: Pair, some: NDArray[np.bool_]) -> Estimate:
    """Return by how much more films are fractured than their probabilities say."""
    gaps = np.where(some, _truth(pair) - pair.films["probability"].to_numpy(), 0)
    return patients.ratio(gaps, some, scale="plain")


_FIGURES: dict[str, tuple[str, Any, Any]] = {
    "auroc": ("AUROC", "fractured and normal films are told apart less well", _auroc),
    "sensitivity": ("Sensitivity", "more fractured films are missed", _sensitivity),
    "specificity": ("Specificity", "more normal films are called fractured", _specificity),
    "calibration": (
        "Fractured films less those expected",
        ("probabilities have become too high", "probabilities have become too low"),
        _calibration,
    ),
}


def _truth(pair: Pair) -> NDArray[np.bool_]:
    return (pair.films["fractured"] == 1).to_numpy()


def measured_performance(pair: Pair) -> Findings | None:
    """Return figures of labelled films, of the window, the reference, and their difference."""
    labelled = pair.films["fractured"].notna().to_numpy()
    if not (labelled & pair.is_window).any():
        return None
    patients = pair.bootstrap()
    sides = {"window": labelled & pair.is_window, "reference": labelled & ~pair.is_window}
    found: Findings = {}
    for name, (title, _, estimate) in _FIGURES.items():
        parts = [estimate(patients, pair, some) for some in sides.values()]
        row = {side: patients.interval(one) for side, one in zip(sides, parts, strict=True)}
        found[name] = {"title": title, **row, "change": patients.contrast(*parts)}
    found["ece"] = {
        "title": "Expected calibration error",
        **{side: _ece(pair, some) for side, some in sides.items()},
        "change": missing("not compared: chance alone makes it larger in fewer films"),
    }
    return found


def _ece(pair: Pair, some: NDArray[np.bool_]) -> Interval:
    films = pair.films[some]
    patients = PatientBootstrap(films["patient"], RESAMPLES, pair.config.seed)
    scores = films["probability"].to_numpy(np.float64)
    bins = equal_mass_bins(scores, CALIBRATION_BINS)
    return calibration_error(patients, films["fractured"] == 1, scores, bins)
