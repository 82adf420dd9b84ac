"""Metrics of a predictions frame: whole, empty, of one kind, and read back."""

import json

import numpy as np
import pandas as pd
import pytest
from made_pages import each_interval
from sklearn import metrics as oracle

from pedfrac.age_groups import AgeGroups
from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.errors import PedfracError
from pedfrac.evaluation.evaluation import (
    Counted,
    Folds,
    call_images,
    evaluate,
    in_words,
    load_metrics,
    load_predictions,
    pooled_metrics,
    save_evaluation,
    summary_rows,
)
from pedfrac.scoring.calibrators import Calibrator, Calibrators
from pedfrac.scoring.scorer import Scorer, scored

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")

AGES = AgeGroups((0, 1.5, 5, 10, 15, 19))
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
CONFIG = EvaluationConfig(resamples=100)
MODEL_NAMES = {"bundle", "specialist", "generalist", "bundle by seen age"}
PLAIN = Calibrator(method="none")


def make_scorer(choices, thresholds=THRESHOLDS):
    return Scorer(
        choices=choices,
        calibrators=Calibrators(pooled=PLAIN, groups=(PLAIN,) * 5, weights=(0,) * 5),
        pooled_threshold=0.5,
        thresholds=thresholds,
        threshold_weights=(0,) * 5,
        study_thresholds=thresholds,
        low=thresholds,
        high=thresholds,
    )


SCORERS = {
    "bundle": make_scorer(("specialist", "generalist", "average", "specialist", "specialist")),
    "specialist": make_scorer(("specialist",) * 5),
    "generalist": make_scorer(("generalist",) * 5, (0.5,) * 5),
}


def make_predictions(images, seed=0):
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "filestem": [f"{number:04d}" for number in range(images)],
            "patient_id": random.integers(0, max(1, images // 2), images),
            "study_number": random.integers(1, 4, images),
            "age": random.uniform(0.2, 19, images).round(1),
            "gender": random.choice(["M", "F"], images),
            "laterality": random.choice(["L", "R"], images),
            "projection": random.integers(1, 3, images),
            "cast": random.random(images) < 0.3,
            "initial_exam": random.random(images) < 0.6,
            "osteopenia": random.random(images) < 0.1,
            "diagnosis_uncertain": random.random(images) < 0.05,
            "fracture_visible": random.random(images) < 0.6,
        }
    )
    group = AGES.assign(table["age"])
    seen = (group + random.integers(-1, 2, images)).clip(0, 4)
    networks = {
        f"network_{name}": (0.6 * random.random(images) + 0.3 * table["fracture_visible"]).round(3)
        for name in ("generalist", *range(5))
    }
    ages = np.eye(5)[seen] * 0.8 + 0.04
    told = {f"age_{index}": ages[:, index] for index in range(5)}
    return scored(table.assign(group=group, group_seen=seen, **told, **networks), SCORERS)


def evaluated(predictions, training=None, config=CONFIG):
    training = make_predictions(200, seed=9) if training is None else training
    metrics = evaluate(predictions, training, AGES, SCORERS, config)
    json.dumps(metrics.model_dump(), allow_nan=False)
    return metrics


@pytest.fixture(scope="module")
def predictions():
    return make_predictions(300)


@pytest.fixture(scope="module")
def metrics(predictions):
    return evaluated(predictions)


def test_every_group_and_subset_has_every_metric(metrics):
    assert [row.name for row in metrics.groups] == ["all", *AGES.names]
    assert [row.group for row in metrics.groups] == [-1, 0, 1, 2, 3, 4]
    assert {row.name for row in metrics.subsets} >= {
        "no cast",
        "initial exam",
        "no cast, initial exam",
        "cast",
    }
    for row in (*metrics.groups, *metrics.subsets):
        assert set(row.models) == MODEL_NAMES
        for model in row.models.values():
            assert set(type(model).model_fields) == {
                "threshold",
                "auroc",
                "average_precision",
                "sensitivity",
                "specificity",
                "ppv",
                "npv",
                "accuracy",
                "f1",
                "confusion",
            }
            assert sum(map(sum, model.confusion)) == row.images
    assert sum(row.images for row in metrics.groups[1:]) == metrics.groups[0].images
    for row in (*metrics.groups, *metrics.subsets):
        for interval in each_interval(row.models):
            assert 0 <= interval["low"] <= interval["value"] <= interval["high"] <= 1


def test_pooled_specialists_call_by_the_threshold_of_each_group(predictions, metrics):
    model = metrics.groups[0].models["specialist"]
    limits = np.array(THRESHOLDS)[predictions["group"]]
    truth, call = predictions["fracture_visible"], predictions["specialist"] >= limits
    assert model.threshold is None
    assert model.confusion == oracle.confusion_matrix(truth, call).tolist()
    assert model.sensitivity.value == pytest.approx(oracle.recall_score(truth, call))
    assert model.f1.value == pytest.approx(oracle.f1_score(truth, call))
    area = oracle.roc_auc_score(truth, predictions["specialist"])
    assert model.auroc.value == pytest.approx(area)
    assert metrics.curves["bundle"].roc.fpr[-1] == 1
    for row, threshold in zip(metrics.groups[1:], THRESHOLDS, strict=True):
        assert row.models["specialist"].threshold == threshold
        assert row.models["generalist"].threshold == 0.5


def test_routed_specialists_call_by_the_group_that_was_seen(predictions, metrics):
    limits = np.array(THRESHOLDS)[predictions["group_seen"]]
    call = predictions["seen"] >= limits
    wanted = oracle.confusion_matrix(predictions["fracture_visible"], call).tolist()
    assert metrics.groups[0].models["bundle by seen age"].confusion == wanted


def test_subsets_hold_what_they_say(predictions, metrics):
    subsets = {row.name: row for row in metrics.subsets}
    some = predictions[~predictions["cast"] & predictions["initial_exam"]]
    row = subsets["no cast, initial exam"]
    assert (row.images, row.fractured) == (len(some), some["fracture_visible"].sum())
    assert row.patients == some["patient_id"].nunique()
    assert subsets["no cast"].images + subsets["cast"].images == len(predictions)


def test_age_metrics_are_those_of_scikit_learn(predictions, metrics):
    group, seen = predictions["group"], predictions["group_seen"]
    age = metrics.age
    assert age.accuracy.value == pytest.approx((group == seen).mean())
    assert age.adjacent.value == 1
    assert age.f1.value == pytest.approx(oracle.f1_score(group, seen, average="macro"))
    assert age.confusion == oracle.confusion_matrix(group, seen).tolist()
    assert age.names == AGES.names


def test_an_estimated_age_has_its_error_where_the_age_is_recorded(predictions, metrics):
    assert metrics.age.mean_absolute_error is None
    seen = predictions["age"] + np.where(predictions.index % 2, 1.5, -0.5)
    found = evaluated(predictions.assign(age_seen=seen))
    error = found.age.mean_absolute_error
    assert error.value == pytest.approx(1.0)
    assert 0.9 < error.low < 1 < error.high < 1.1
    assert "Estimated age: mean absolute error 1.00 (0.9" in in_words(found)


def test_folds_are_pooled_with_the_calls_of_their_own(predictions, metrics):
    training = make_predictions(200, seed=9)
    middle = predictions["patient_id"].median()
    halves = [predictions[predictions["patient_id"] < middle]]
    halves.append(predictions.drop(halves[0].index))
    folds = [call_images(half, training, SCORERS) for half in halves]
    images, found = pooled_metrics(folds, AGES, CONFIG)
    assert Folds.model_validate_json(json.dumps(found.model_dump(), allow_nan=False)) == found
    assert sorted(images["filestem"]) == sorted(predictions["filestem"])
    assert (found.folds, found.images) == (2, len(predictions))
    assert found.held_out[0] == Counted(
        images=len(halves[0]), patients=halves[0]["patient_id"].nunique()
    )
    # networks, thresholds and baselines are the same in both folds: nothing is lost by pooling
    assert (
        found.groups
        == pooled_metrics([call_images(predictions, training, SCORERS)], AGES, CONFIG)[1].groups
        == metrics.groups
    )
    with pytest.raises(PedfracError, match="held out from more than one"):
        pooled_metrics([folds[0], folds[0]], AGES, CONFIG)


def test_baselines_stand_beside_every_area(metrics):
    names = ["age, sex, projection, side", "with cast, initial exam, study number, osteopenia"]
    assert list(metrics.baselines) == names
    for row in (*metrics.groups, *metrics.subsets):
        assert list(row.baselines) == names
        # The truth of these images is drawn at random: metadata cannot tell it.
        assert row.baselines[names[0]].value < 0.85


def test_images_beside_the_test_set_count_in_studies_alone(predictions):
    first = ~predictions.duplicated(["patient_id", "study_number"])
    tested, others = predictions[first], predictions[~first]
    metrics = evaluate(tested, make_predictions(200, seed=9), AGES, SCORERS, CONFIG, others)
    whole = evaluated(predictions)
    alone = evaluated(tested)
    assert metrics.groups == alone.groups
    assert metrics.calibration == alone.calibration
    assert metrics.studies == whole.studies
    assert metrics.studies.groups[0].images == len(tested)
    assert alone.studies.groups[0].fractured < whole.studies.groups[0].fractured


def test_same_images_same_metrics(predictions, metrics):
    assert evaluated(predictions) == metrics


@pytest.mark.parametrize("images", [0, 1, 2, 7])
def test_few_images_give_metrics_or_reasons(images):
    metrics = evaluated(make_predictions(images))
    for interval in each_interval(metrics):
        assert interval["low"] is not None or interval["reason"]
    assert len(summary_rows(metrics)) == 11
    assert in_words(metrics)


@pytest.mark.parametrize(("kind", "word"), [(True, "fractured"), (False, "normal")])
def test_images_of_one_kind(kind, word):
    table = make_predictions(60).assign(fracture_visible=kind)
    metrics = evaluated(table)
    model = metrics.groups[0].models["specialist"]
    assert model.auroc.reason == f"only {word} images"
    missing = "specificity" if kind else "sensitivity"
    assert getattr(model, missing).reason == f"no {'normal' if kind else 'fractured'} images"
    assert model.accuracy.low is not None
    assert metrics.curves["generalist"].roc.tpr == []


def test_training_images_of_one_kind_teach_no_baseline():
    training = make_predictions(50).assign(fracture_visible=True)
    metrics = evaluated(make_predictions(60), training)
    assert {row.reason for row in metrics.baselines.values()} == {
        "training images are all of one kind"
    }


def test_without_resamples_curves_and_calibration_errors_are_values_alone():
    metrics = evaluated(make_predictions(60), config=EvaluationConfig(resamples=0))
    error = metrics.calibration.groups[0].after.ece
    assert error.value > 0
    assert (error.low, error.high, error.reason) == (None, None, "without resamples")
    assert metrics.curves["generalist"].roc.tpr
    assert metrics.curves["generalist"].roc.low == []
    assert metrics.groups[0].models["generalist"].auroc.bounds


def test_a_image_without_a_score_is_named():
    table = make_predictions(5)
    table.loc[3, "bundle"] = np.nan
    with pytest.raises(PedfracError, match=r"1 of 5 test images .* 0003"):
        evaluated(table)


def test_saved_evaluations_read_back(tmp_path, predictions, metrics):
    save_evaluation(tmp_path / "evaluation", predictions, metrics)
    table = load_predictions(tmp_path / "evaluation")
    found = load_metrics(tmp_path / "evaluation")
    pd.testing.assert_frame_equal(table, predictions, check_dtype=False)
    assert found == metrics


def test_summary_in_rows_and_words(metrics):
    row = summary_rows(metrics)[0]
    assert (row["group"], row["images"]) == ("all", 300)
    assert row["bundle AUROC"].endswith(")")
    words = in_words(metrics)
    assert "bundle by seen age 0." in words
    assert "metadata alone (age, sex, projection, side) 0." in words
