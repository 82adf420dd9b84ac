"""Findings of a run that never was: made-up images and answers, all else computed by pedfrac."""

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.data.cohort import make_cohort
from pedfrac.data.records import Records
from pedfrac.data.splitting import make_split
from pedfrac.evaluation.evaluation import call_images, evaluate, pooled_metrics
from pedfrac.evaluation.published import published_references
from pedfrac.evaluation.robustness import robustness_metrics
from pedfrac.evaluation.shortcuts import shortcut_metrics
from pedfrac.explanation.localisation import Localisation, localisation_metrics
from pedfrac.reporting.schema import Findings
from pedfrac.scoring.scorer import fit_scorers, scored, select_networks
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

ISSUES = ["filestem", "line", "kind", "field", "value", "reason", "dropped"]


def make_config(**sections):
    return RetrainConfig.model_validate(
        {"data": {"root": "data"}, "split": {"test_per_year": 2}} | sections
    )


def make_findings(images=900, config=None, fractured=None, disturbed=False, tested=None):
    """Return the content of metrics.json as it is read back.

    ``fractured``: of all test images; ``tested``: so many test images and no more.
    """
    config = config or make_config()
    ages = config.cohort.ages
    table = _images(images, ages)
    records = Records(table, pd.DataFrame({"class_id": [3, 8]}), pd.DataFrame(columns=ISSUES))
    cohort = make_cohort(records, config.cohort)
    split, parts = make_split(cohort.table, config.split, ages)
    part = {name: _answered(cohort.table, split.images(name)) for name in ("validation", "test")}
    part["test"] = part["test"].head(tested if tested is not None else images)
    if fractured is not None:
        part["test"] = part["test"].assign(fracture_visible=fractured)
    selection = select_networks(part["validation"], len(ages), config.evaluation)
    choices = [one.choice for one in selection]
    scorers = fit_scorers(part["validation"], choices, config.evaluation)
    test = scored(part["test"], scorers)
    learned = cohort.table[~cohort.table["filestem"].isin(split.images("test"))]
    with threadpool_limits(1):  # threads that wait for each other cost more than so few images
        metrics = evaluate(test, learned, ages, scorers, config.evaluation)
    content = {
        "title": "Made-up",
        "cohort": {"steps": cohort.steps, "groups": cohort.groups},
        "records": records.summary(),
        "split": parts,
        "training": _trainings(parts, ages.names),
        "selection": [
            {"name": n, **dict(one)} for n, one in zip(ages.names, selection, strict=True)
        ],
        **dict(metrics),
        "explanation": {
            name: _explained(name, test[test["group"] == group], config)
            for group, name in enumerate(ages.names)
        },
        "config": config.model_dump(mode="json", exclude={"runtime"}),
        "provenance": {"code version": "0.1.0", "bundle": "bundle/b1", "split": "split/s1"},
    }
    if disturbed:
        content |= _disturbed(test, config)
        called = call_images(test, learned, scorers)
        folds = [called[called["patient_id"] % 2 == fold] for fold in range(2)]
        content["folds"] = pooled_metrics(folds, ages, config.evaluation)[1]
    return Findings.model_validate(content).model_dump(mode="json")


def _images(images, ages):
    random = np.random.default_rng(1)
    patient = np.sort(random.integers(0, images // 2, images))
    years = random.uniform(0.2, 19, images // 2).round(1)[patient]
    return pd.DataFrame(
        {
            "filestem": [f"{p:04d}_{number:04d}" for number, p in enumerate(patient)],
            "patient_id": patient,
            "study_number": random.integers(1, 3, images),
            "age": years,
            "group": ages.assign(years),
            "gender": random.choice(["M", "F"], images),
            "laterality": random.choice(["L", "R"], images),
            "projection": random.integers(1, 3, images),
            "pixel_spacing": random.choice([0.143, 0.144], images),
            "ao_classification": "23r-M/2.1",
            "cast": random.random(images) < 0.2,
            "initial_exam": random.random(images) < 0.6,
            "osteopenia": random.random(images) < 0.1,
            "diagnosis_uncertain": random.random(images) < 0.05,
            "metal": random.random(images) < 0.05,
            "fracture_visible": random.random(images) < 0.6,
        }
    )


def _answered(table, stems):
    """Return images with what networks say of them: much of fractures, less of ages."""
    images = table.set_index("filestem").loc[stems].reset_index()
    random = np.random.default_rng(2)
    for name in ("generalist", *range(5)):
        said = 0.5 * random.random(len(images)) + 0.3 * images["fracture_visible"] + 0.05
        images[f"network_{name}"] = said
    seen = (images["group"] + random.integers(-1, 2, len(images))).clip(0, 4).to_numpy()
    told = pd.DataFrame(np.eye(5)[seen] * 0.8 + 0.04, columns=[f"age_{k}" for k in range(5)])
    return images.join(told).assign(group_seen=seen)


def _trainings(split, names):
    def training(name, classes, counts):
        part = {"images": sum(counts), "patients": sum(counts) // 2, "classes": counts}
        summary = {"name": name, "classes": classes, "best_epoch": 3, "epochs": 5}
        summary |= {"monitor": "auroc", "metric": 0.8, "train": part, "validation": part}
        return {"history": [], "summary": summary}

    def kinds(one):
        return [one["train"]["normal"], one["train"]["fractured"]]

    groups = split["groups"]
    return {
        "age": training("age", names, [one["train"]["images"] for one in groups]),
        "generalist": training("generalist", ["normal", "fractured"], kinds(split["parts"])),
    } | {one["name"]: training(one["name"], ["normal", "fractured"], kinds(one)) for one in groups}


def _explained(name, images, config):
    """Return metrics of maps that hit every other box, as ``explain_group`` leaves them."""
    boxed = np.flatnonzero(images["fracture_visible"])
    hit, share = np.arange(len(boxed)) % 2 == 0, np.full(len(boxed), 0.1)
    found, centre = (Localisation(boxed, one, share, share, share) for one in (hit, ~hit))
    patients = PatientBootstrap(images["patient_id"].to_numpy()[boxed], 0, 0)
    metrics = localisation_metrics(found, centre, patients)
    method = config.explanation.method
    return {
        "group": name,
        "images": len(images),
        "with_boxes": len(boxed),
        "method": method,
        "methods": {method: {"localisation": metrics}},
        "networks": 1,
        "note": "",
        "pictures": [],
        "mass": metrics.energy.map,
        "pointing": metrics.pointing.map,
        "chance": metrics.energy.chance.value,
        "verdicts": {"hit": 0, "miss": 0, "false-alarm": 0, "correct-rejection": 0},
    }


def _disturbed(test, config):
    pixels = np.random.default_rng(3).integers(0, 256, (len(test), 16, 16), dtype=np.uint8)
    known = test["fracture_visible"], test["patient_id"]
    how = EvaluationConfig(resamples=0)

    def score(images):
        return images.mean(axis=(1, 2)) / 255

    boxes = [np.array([[0, 0, 4, 4]])] * len(test)
    return {
        "robustness": robustness_metrics(score, pixels, *known, 0.5, config.robustness, how),
        "shortcuts": shortcut_metrics(score, pixels, boxes, *known, how),
        "published": published_references()[:1],
    }
