"""Folds held out in turn on pools of workers: trained and scored by the GPU pool, pooled once."""

import time

import pytest
from platforms import config, seconds

FOLDS = 2


@pytest.fixture(scope="module")
def folded(stage):
    """A retraining with folds: its parameters, its state and when it was begun."""
    given = config(stage, "folded", epochs=3, cohort={"age_bounds": [0, 10, 19]})
    given["config"]["split"]["folds"] = FOLDS
    begun = time.time()
    state = stage.finish(stage.begin("retrain/retrain", given))
    assert state["type"] == "COMPLETED", state["message"]
    return begun


def test_every_fold_is_trained_and_scored_by_the_gpu_pool(stage, folded):
    flows = ("train-age", "train-fracture", "score-fold")
    runs = [run for flow in flows for run in stage.runs(flow) if seconds(run["created"]) >= folded]
    words = ["", *(f", fold {fold} of {FOLDS}" for fold in range(1, FOLDS + 1))]
    trained = ("train-age", "train-generalist", "train-0-10y", "train-10-19y")
    wanted = [name + fold for fold in words for name in trained]
    wanted += [f"score fold {fold} of {FOLDS}" for fold in range(1, FOLDS + 1)]
    assert sorted(run["name"] for run in runs) == sorted(wanted)
    assert {run["work_pool_name"] for run in runs} == {"gpu"}


def test_pooled_metrics_are_in_the_evaluation(store, folded):
    kept = store("folded")
    (pooled,) = kept.of_kind("folds")
    evaluation = next(one for one in kept.of_kind("evaluation") if "folds" in one.manifest.parents)
    assert evaluation.manifest.parents["folds"].key == pooled.key
    metrics = kept.get(evaluation.key).read_json("metrics.json")["folds"]
    assert metrics == kept.get(pooled.key).read_json("metrics.json")
    assert [row["name"] for row in metrics["groups"]] == ["all", "0-10y", "10-19y"]
