"""Versions that never were, as the gate sees them: made-up answers, all metrics by pedfrac."""

from functools import cache

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from pedfrac.age_groups import AgeGroups
from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.evaluation.evaluation import evaluate
from pedfrac.explanation.localisation import Localisation, localisation_metrics
from pedfrac.explanation.metrics import GroupExplanation, MethodMetrics
from pedfrac.promotion.decision import Model
from pedfrac.scoring.scorer import fit_scorers, scored
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

AGES = AgeGroups((0, 6, 12, 19))
CONFIG = EvaluationConfig(resamples=0, selection_patients=2)
IMAGES, TESTED = 420, 320
SETTINGS = {
    "age bounds": [0, 6, 12, 19],
    "training": {"generalist": {"epochs": 3}},
    "data": {"fingerprint": "d1"},
    "preparation": {"fracture": {"size": 32, "markers": "fill"}},
}


@cache
def images():
    """Return metadata of images, those to be tested first, each patient with two."""
    random = np.random.default_rng(1)
    patient = np.arange(IMAGES) // 2
    years = random.uniform(0.2, 19, IMAGES).round(1)[patient]
    return pd.DataFrame(
        {
            "filestem": [f"{p:04d}_{number:04d}" for number, p in enumerate(patient)],
            "patient_id": patient,
            "study_number": 1,
            "age": years,
            "gender": np.where(patient % 2, "M", "F"),
            "laterality": random.choice(["L", "R"], IMAGES),
            "projection": random.integers(1, 3, IMAGES),
            "pixel_spacing": random.choice([0.143, 0.144], IMAGES),
            "ao_classification": "",
            "cast": random.random(IMAGES) < 0.2,
            "initial_exam": random.random(IMAGES) < 0.6,
            "osteopenia": random.random(IMAGES) < 0.1,
            "diagnosis_uncertain": False,
            "metal": False,
            "fracture_visible": random.random(IMAGES) < 0.5,
        }
    )


def answers(skill=3.0, seed=2, worse=None, weaker=0.0, jitter=0.0, truth=None):
    """Return what networks say of all images: log odds that lie ``skill`` apart, with noise.

    Where ``worse`` (n,) the distance is ``weaker``; ``jitter`` is noise of this version alone.
    """
    table = images()
    truth = table["fracture_visible"].to_numpy() if truth is None else truth
    noise = np.random.default_rng(2).normal(size=IMAGES)
    noise += jitter * np.random.default_rng(seed).normal(size=IMAGES)
    apart = np.full(IMAGES, skill)
    if worse is not None:
        apart[worse] = weaker
    odds = apart * (truth - 0.5) + noise
    said = 1 / (1 + np.exp(-apart.max() * odds))
    group = AGES.assign(table["age"])
    columns = dict.fromkeys(("network_generalist", *map("network_{}".format, range(3))), said)
    told = {f"age_{k}": np.where(group == k, 0.9, 0.05) for k in range(3)}
    return table.assign(group=group, group_seen=group, **columns, **told)


def make_version(number=1, said=None, pointing=0.7, **changes):
    """Return a version whose test images are those of all others."""
    said = answers() if said is None else said
    test, validation = said[:TESTED].reset_index(drop=True), said[TESTED:].reset_index(drop=True)
    scorers = fit_scorers(validation, ["generalist"] * 3, CONFIG)
    predictions = scored(test, scorers)
    with threadpool_limits(1):
        metrics = evaluate(predictions, validation, AGES, scorers, CONFIG)
    given = {
        "version": number,
        "images": predictions,
        "metrics": metrics,
        "explanation": {
            name: _explained(name, predictions[predictions["group"] == group], pointing)
            for group, name in enumerate(AGES.names)
        },
        "learned": frozenset(validation["patient_id"].tolist()),
        "shared": 0,
        "settings": SETTINGS,
        "verified": ("bundle", "evaluation"),
    }
    return Model(**given | changes)


def _explained(name, group, hits):
    """Return metrics of maps whose peak lies in so many of the boxes."""
    boxed = np.flatnonzero(group["fracture_visible"])
    hit, share = np.arange(len(boxed)) < hits * len(boxed), np.full(len(boxed), 0.1)
    found, centre = (Localisation(boxed, one, share, share, share) for one in (hit, ~hit))
    patients = PatientBootstrap(group["patient_id"].to_numpy()[boxed], 0, 0)
    metrics = localisation_metrics(found, centre, patients)
    return GroupExplanation(
        group=name,
        images=len(group),
        with_boxes=len(boxed),
        networks=1,
        method="gradcam",
        methods={"gradcam": MethodMetrics(localisation=metrics)},
        note="",
        verdicts={},
        pictures=[],
        pointing=metrics.pointing.map,
        mass=metrics.energy.map,
        chance=metrics.energy.chance.value,
    )
