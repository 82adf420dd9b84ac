"""A retraining over pools of workers, as deployed: real Prefect, MLflow and S3."""

from pathlib import Path

import mlflow
import pytest
from platforms import GROUPS, config, seconds

from pedfrac.bundle.bundle import bundle_digest
from pedfrac.config.locations import TrackingConfig
from pedfrac.promotion.registry import Registry

MODELS = ("age-model", "fracture-model")


def test_groups_train_in_processes_of_the_pool_two_at_a_time(stage, first):
    _, state, runs = first
    assert state["type"] == "COMPLETED", state["message"]
    assert {run["name"] for run in runs} == {
        "train-age",
        "train-generalist",
        *(f"train-{group}" for group in GROUPS),
    }
    assert {run["work_pool_name"] for run in runs} == {"gpu"}
    (assessed,) = stage.runs("assess-bundle")  # the networks are asked where the devices are
    assert (assessed["work_pool_name"], assessed["state_type"]) == ("gpu", "COMPLETED")
    assert len({run["infrastructure_pid"] for run in runs}) == len(runs)
    spans = [(seconds(run["start_time"]), seconds(run["end_time"])) for run in runs]
    at_once = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert max(at_once) == 2


def test_every_artifact_verifies_and_mlflow_has_all_models(stage, first, store):
    kept = list(store("first").of_kind())
    assert {"records", "split", "pack", "bundle", "report", *MODELS} <= {
        a.manifest.kind for a in kept
    }
    for artifact in kept:
        store("first").get(artifact.key)
    client = mlflow.MlflowClient(stage.environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("first").experiment_id
    runs = client.search_runs([experiment])
    assert {run.info.run_name for run in runs} >= {"retrain", "age", "generalist", *GROUPS}
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_the_server_has_the_bundle_as_a_version_that_can_be_loaded(stage, first, store, tmp_path):
    tracking = TrackingConfig(uri=stage.environment["MLFLOW_TRACKING_URI"])
    registry = Registry.of(tracking, tmp_path)
    versions = {one.tags["bundle"]: one for one in registry.versions()}
    bundle = next(store("first").of_kind("bundle"))
    assert versions[bundle.key].run_id
    there = mlflow.MlflowClient(tracking.uri).get_model_version_download_uri(
        registry.name, str(versions[bundle.key].number)
    )
    files = mlflow.artifacts.download_artifacts(
        there, dst_path=str(tmp_path), tracking_uri=tracking.uri
    )
    (info,) = Path(files).rglob("bundle.json")
    assert bundle_digest(info.parent) == bundle_digest(bundle.path)


def test_a_scheduled_run_with_nothing_new_ends_at_once(stage, first):
    run = stage.begin("retrain/retrain-weekly", config(stage, "first"))
    state = stage.finish(run)
    assert (state["type"], state["name"]) == ("COMPLETED", "Nothing to do")
    parent = next(r["name"] for r in stage.runs("retrain") if r["id"] == first[0])
    assert f"those of run {parent}" in state["message"]


def test_a_wrong_value_is_refused_before_any_run(stage):
    wrong = config(stage, "wrong")
    wrong["config"]["fracture"]["training"]["imbalance"] = "both"
    before = len(stage.runs())
    with pytest.raises(OSError, match="409|422"):
        stage.begin("retrain/retrain", wrong)
    assert len(stage.runs()) == before
