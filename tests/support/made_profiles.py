"""Made-up reference profiles, and windows of images like theirs or changed."""

import numpy as np
import pandas as pd

from pedfrac.bundle.embedding import Basis
from pedfrac.bundle.reference_profile import IMAGE, Profile, feature_names
from pedfrac.config.monitoring import MonitorConfig
from pedfrac.monitoring.time_windows import Window

FEATURES = 3
BOUNDS, GROUPS = np.array([5.0, 10.0]), np.array(["0-5y", "5-10y", "10-19y"])
RULES = {"scores": ("-",), "bundle": "-", "false_alarm_rate": 0.05, "draws": 499}


def made_images(seed, patients=120, views=2, prevalence=0.5, age=9.0, **moved):
    """Return images of patients, two views each; ``moved`` statistics lie so many spreads higher.

    Half the spread of a statistic is the patient's; fractured images have higher probabilities.
    """
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), views)
    ages = np.clip(random.normal(age, 3.5, patients), 0.2, 18.9)[owner]
    fractured = (random.random(patients) < prevalence)[owner]
    probability = 1 / (1 + np.exp(-(random.normal(size=len(owner)) + 4 * (fractured - 0.5))))
    images = pd.DataFrame(
        {
            "patient": owner,
            "fractured": fractured,
            "age": ages,
            "probability": probability,
            "threshold": 0.5,
            "sex": np.array(["F", "M"])[random.integers(0, 2, patients)][owner],
            "laterality": np.array(["L", "R"])[random.integers(0, 2, patients)][owner],
            "view": np.tile(["frontal", "lateral", "other", "frontal"], patients)[: len(owner)],
            "age_group_used": GROUPS[np.searchsorted(BOUNDS, ages, "right")],
            "call": np.where(probability >= 0.5, "fractured", "normal"),
        }
    )
    images["age_group_seen"] = images["age_group_used"]
    for name in (*IMAGE, *feature_names(FEATURES)):
        shift = moved.get(name.removeprefix("image_"), 0)
        images[name] = random.normal(size=patients)[owner] + random.normal(size=len(owner)) + shift
    return images


def made_profile(seed=0, patients=120):
    images = made_images(seed, patients)
    about = {
        "images": len(images),
        "patients": patients,
        "markers": "fill",
        "images_are": "made up",
    }
    return Profile(images, Basis(np.zeros(5), np.eye(5)[:FEATURES]), about)


def made_window(seed=1, known=True, labelled=False, **how):
    images = made_images(seed, **how)
    images["fractured"] = images["fractured"].astype(float) if labelled else np.nan
    if not known:
        images["patient"] = np.arange(len(images))
    time = "2025-03-03T08:00:00+00:00"
    return Window(images.assign(markers="removed"), known, {"without a score": 0}, time, time)


def rules(**changes):
    return MonitorConfig(**{**RULES, **changes})
