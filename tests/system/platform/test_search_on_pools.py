"""A search whose trials run on the GPU pool, as trainings do."""

import time

import pytest
import yaml
from platforms import config, seconds

TRIALS = 3


@pytest.fixture(scope="module")
def searched(stage):
    """When a search was begun that has ended well."""
    given = config(stage, "searched", epochs=2)
    space = {"fracture.training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    given["search"] = {"name": "rates", "trials": TRIALS, "parallel": 2, "space": space}
    begun = time.time()
    state = stage.finish(stage.begin("search/search", given))
    assert state["type"] == "COMPLETED", state["message"]
    return begun


def test_trials_run_on_the_gpu_pool(stage, searched):
    runs = [run for run in stage.runs("try-training") if seconds(run["created"]) >= searched]
    assert sorted(run["name"] for run in runs) == [f"try-{n}-of-rates" for n in range(TRIALS)]
    assert {run["work_pool_name"] for run in runs} == {"gpu"}


def test_the_best_is_kept_as_yaml(store, searched):
    (kept,) = store("searched").of_kind("search")
    kept = store("searched").get(kept.key)
    trials = kept.read_json("trials.json")
    assert {one["state"] for one in trials} == {"finished"} and len(trials) == TRIALS
    best = max(trials, key=lambda one: one["metric"])
    found = yaml.safe_load(kept.file("best.yaml").read_text())
    wanted = best["fracture.training.learning_rate"]
    assert found["fracture"]["training"]["learning_rate"] == pytest.approx(wanted)
