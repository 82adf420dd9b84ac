"""Subgroups in which a model fails, and images on which it does equally well everywhere."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import ttest_ind

from pedfrac.age_groups import AgeGroups
from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.evaluation.subgroups import find_subgroups, subgroup_metrics
from pedfrac.statistics.intervals import holm
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

pytestmark = pytest.mark.filterwarnings("error")

AGES = AgeGroups((0, 5, 10, 19))
CONFIG = EvaluationConfig()


def draw_images(seed, patients=300, fails=None, strength=3.0):
    """Draw images with metadata, and probabilities that are right but where ``fails`` says."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), random.integers(1, 4, patients))
    count = len(owner)

    def of_patient(values):
        return random.choice(values, patients)[owner]

    age = random.uniform(0, 19, patients)[owner]
    cast = random.random(count) < 0.3
    table = pd.DataFrame(
        {
            "patient_id": owner,
            "group": AGES.assign(age),
            "gender": of_patient(["F", "M"]),
            "projection": random.integers(1, 3, count),
            "laterality": of_patient(["L", "R"]),
            "pixel_spacing": np.where(random.random(patients) < 0.97, 0.144, 0.143)[owner],
            "cast": cast,
            "initial_exam": random.random(count) < 0.6,
            "osteopenia": random.random(count) < 0.15,
            "diagnosis_uncertain": random.random(count) < 0.02,
            "fracture_visible": random.random(count) < np.where(cast, 0.7, 0.5),
        }
    )
    kinds = np.array(["23r-M/2.1", "23r-M/3.1; 23u-E/7", "23-M/3.1", ""])
    table["ao_classification"] = np.where(
        table["fracture_visible"], kinds[random.integers(0, 4, count)], ""
    )
    prior = np.where(cast, np.log(0.7 / 0.3), 0)
    shift = strength * (table["fracture_visible"] - 0.5)
    errors = 0.5 * random.normal(size=patients)[owner] + 0.87 * random.normal(size=count)
    bad = np.zeros(count, bool) if fails is None else fails(table).to_numpy()
    evidence = strength * (np.where(bad, 0, shift) + errors)
    return table, expit(evidence + prior)


def metrics_of(images, probability, config=CONFIG):
    found = subgroup_metrics(images, probability, probability >= 0.5, AGES, config)
    json.dumps(found.model_dump(), allow_nan=False)
    return found


def row_of(found, name):
    return next(row for row in found.subgroups if row.name == name)


def differing(found):
    return {
        (row.name, metric)
        for row in found.subgroups
        for metric, values in row.metrics.items()
        if values.differs
    }


def test_each_subgroup_has_the_metrics_of_its_images():
    images, probability = draw_images(0)
    found = metrics_of(images, probability)
    names = {row.name for row in found.subgroups}
    assert {
        "0-5y, girls",
        "10-19y, boys",
        "AP",
        "lateral",
        "other",
        "left",
        "right",
        "Siemens",
        "Agfa",
        "cast",
        "no cast",
        "initial exam",
        "follow-up",
        "osteopenia",
        "diagnosis uncertain",
        "23r-M/2.1",
        "23u-E/7",
    } <= names
    some = (images["cast"]).to_numpy()
    row, truth = row_of(found, "cast"), images["fracture_visible"].to_numpy()
    assert (row.images, row.fractured) == (some.sum(), (truth & some).sum())
    assert row.patients == images["patient_id"][some].nunique()
    assert row.prevalence.value == pytest.approx(truth[some].mean())
    own = PatientBootstrap(images["patient_id"][some], 0, 0)
    for metric, wanted in (
        ("auroc", own.auroc_interval(truth[some], probability[some])),
        ("sensitivity", own.rate_interval(probability[some] >= 0.5, truth[some])),
        ("specificity", own.rate_interval(probability[some] < 0.5, ~truth[some])),
    ):
        found_metric = row.metrics[metric]
        assert found_metric.value == pytest.approx(wanted.value)
        assert found_metric.bounds == pytest.approx(wanted.bounds)
    expected = probability[some].sum()
    ratio = row.metrics["observed_expected"].value
    assert ratio == pytest.approx(truth[some].sum() / expected)


def test_a_subgroup_in_which_the_model_fails_is_found():
    images, probability = draw_images(1, 600, fails=lambda table: table["osteopenia"])
    found = metrics_of(images, probability)
    marked = differing(found)
    assert {("osteopenia", name) for name in ("auroc", "sensitivity", "specificity")} <= marked
    assert {name for name, _ in marked} == {"osteopenia", "no osteopenia"}
    against = row_of(found, "osteopenia").metrics["auroc"].against
    assert against.high < 0
    assert against.p <= against.p_corrected < 0.05
    mirrored = row_of(found, "no osteopenia").metrics["auroc"].against
    assert mirrored.value == pytest.approx(-against.value)
    assert mirrored.p_corrected == against.p_corrected


def test_a_missed_type_of_fracture_is_found():
    images, probability = draw_images(
        2, 500, fails=lambda table: table["ao_classification"] == "23r-M/2.1"
    )
    found = metrics_of(images, probability)
    assert ("23r-M/2.1", "sensitivity") in differing(found)
    row = row_of(found, "23u-E/7")
    assert list(row.metrics) == ["sensitivity"]
    assert row.images == row.fractured > 0


def test_probabilities_that_mislead_in_one_subgroup_are_found():
    images, probability = draw_images(3, 600)
    too_low = np.where(images["laterality"] == "L", 0.5 * probability, probability)
    found = metrics_of(images, too_low)
    assert ("left", "observed_expected") in differing(found)
    assert row_of(found, "left").metrics["observed_expected"].value > 1.5


@pytest.mark.parametrize(("patients", "strength"), [(120, 2.0), (120, 4.0)])
def test_where_nothing_differs_little_is_marked(patients, strength):
    marked, p_values = 0, []
    for seed in range(40):
        random = np.random.default_rng(seed)
        images, _ = draw_images(seed, patients)
        truth = images["fracture_visible"] = random.random(len(images)) < 0.5
        shift = strength * (truth - 0.5)
        probability = expit(strength * (shift + random.normal(size=len(images))))
        found = metrics_of(images, probability)
        marked += bool(differing(found))
        p_values += [
            metric.against.p
            for row in found.subgroups
            for metric in row.metrics.values()
            if metric.against and metric.against.p is not None
        ]
    # One draw in twenty may be marked; more than 6 of 40 come about once in 300.
    assert marked <= 6
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.07


def test_too_small_subgroups_say_so():
    images, probability = draw_images(4, 60)
    found = metrics_of(images, probability)
    row = row_of(found, "Agfa")
    assert row.patients < 10
    for metric in row.metrics.values():
        assert metric.against is None
        assert "10 are asked for" in metric.note
        assert not metric.differs
    assert row_of(found, "other").prevalence.reason == "no images"


def test_halves_are_counted_as_one_comparison():
    images, probability = draw_images(5)
    found = metrics_of(images, probability)
    compared = sum(
        metric.against is not None for row in found.subgroups for metric in row.metrics.values()
    )
    # Projections, sides, casts and exams come as halves, four metrics each.
    assert found.comparisons <= compared - 4 * 4
    assert (found.correction, found.level) == ("Holm", 0.05)


@pytest.mark.parametrize("kind", ["perfect", "constant", "one class", "one patient", "empty"])
def test_hard_cases_give_metrics_or_reasons(kind):
    images, probability = draw_images(6, 80)
    truth = images["fracture_visible"].to_numpy()
    if kind == "perfect":
        probability = truth * 1.0
    if kind == "constant":
        probability = np.full(len(images), 0.5)
    if kind == "one class":
        images["fracture_visible"] = True
    if kind == "one patient":
        images["patient_id"] = 3
    if kind == "empty":
        images, probability = images[:0], probability[:0]
    found = metrics_of(images, probability)
    for row in found.subgroups:
        for metric in row.metrics.values():
            assert metric.low is not None or metric.reason
    if kind in ("perfect", "constant"):
        assert {metric for _, metric in differing(found)} <= {"observed_expected"}
    if kind in ("one patient", "empty"):
        assert found.comparisons == 0


def test_columns_that_may_be_missing_may_be():
    images, _ = draw_images(7, 20)
    names = {one.attribute for one in find_subgroups(images, AGES)}
    fewer = images.drop(columns=["ao_classification", "pixel_spacing"])
    assert names - {one.attribute for one in find_subgroups(fewer, AGES)} == {
        "AO type",
        "manufacturer",
    }


def test_holm_is_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert len(holm([])) == 0


def test_contrasts_of_means_are_those_of_welch():
    random = np.random.default_rng(8)
    values, part = random.normal(size=90), np.arange(90) < 25
    patients = PatientBootstrap(np.arange(90), 0, 0)
    a, b = (patients.ratio(values * some, some * 1.0, scale="plain") for some in (part, ~part))
    found = patients.contrast(a, b)
    wanted = ttest_ind(values[part], values[~part], equal_var=False)
    assert found.p == pytest.approx(wanted.pvalue, rel=0.02)
    assert found.value == pytest.approx(values[part].mean() - values[~part].mean())
