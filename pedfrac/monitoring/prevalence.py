"""Prevalence without labels: how many images are fractured, from their probabilities alone.

Not here: calibration, which must have made the probabilities mean what they say.
"""

import numpy as np
from numpy.typing import ArrayLike

from pedfrac.scoring.calibrators import SURE
from pedfrac.statistics.intervals import Floats, Interval, missing
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

STEPS, CLOSE = 500, 1e-6


def estimated_prevalence(
    patients: PatientBootstrap, probability: ArrayLike, prevalence: float
) -> Interval:
    """Return the share of fractured images, as an interval, from calibrated probabilities (n,).

    They were calibrated where ``prevalence`` of the images were fractured, and take an image for as
    likely to be so; where there are more fractures than that their mean is too low. The prevalence
    that makes them most likely is found by expectation and maximisation (Saerens, Latinne and
    Decaestecker, Neural Comput 2002). It is right if fractured images look as before, and normal
    ones do, and only their numbers differ.
    """
    scores = np.asarray(probability, np.float64).clip(SURE, 1 - SURE)
    if not len(scores):
        return missing("no images")
    if not 0 < prevalence < 1:
        return missing("images of one kind in the reference")

    def metric(weights: Floats) -> Floats:
        share = np.full(len(weights), prevalence)
        total = weights.sum(axis=1)
        for _ in range(STEPS):
            more = (share / prevalence)[:, None] * scores
            less = ((1 - share) / (1 - prevalence))[:, None] * (1 - scores)
            new = (weights * (more / (more + less))).sum(axis=1) / total
            moved, share = np.abs(new - share).max(), new
            if moved < CLOSE:
                break
        return share

    return patients.interval(patients.any_metric(metric))
