"""A whole retraining through the command line: real Prefect, real processes, small phantoms."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from pedfrac.config import PhantomConfig
from pedfrac.phantoms import write_phantoms

TINY = {
    "cohort.age_bounds": "0,10,19",
    "split.test_per_year": 1,
    "fracture.model.backbone": "convnextv2_atto",
    "fracture.model.options": "{depths: [1, 1, 1, 1], dims: [8, 8, 16, 16]}",
    "fracture.model.weights": "none",
    "fracture.model.size": 48,
    "fracture.training.epochs": 2,
    "age.model.options": "{embed_dim: 8, depths: [1, 1], num_heads: [1, 2], window_size: 3}",
    "age.model.weights": "none",
    "age.model.size": 48,
    "age.training.epochs": 2,
    "evaluation.resamples": 50,
    "explanation.films_per_group": 3,
}


def pedfrac(folder: Path, *arguments: str, **changes) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder with tiny networks."""
    settings = [f"--set={name}={value}" for name, value in (TINY | changes).items()]
    configured = [] if arguments[0] == "predict" else ["--data=data", *settings]
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, *configured],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env=os.environ | {"PREFECT_HOME": str(folder / "prefect"), "COLUMNS": "200"},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a data set of phantoms."""
    root = tmp_path_factory.mktemp("run")
    write_phantoms(root / "data", PhantomConfig(images=220, scale=0.2, workers=1))
    return root


@pytest.fixture(scope="module")
def first(folder):
    """A retraining in which one group fails, since it has no films."""
    return pedfrac(folder, "retrain", "--json", **{"cohort.age_bounds": "0,0.3,10,19"})


@pytest.fixture(scope="module")
def done(folder, first):
    """A finished retraining after the one that failed."""
    return pedfrac(folder, "retrain", "--json", **{"runtime.parallel": 2})


def test_a_failing_group_is_named_and_the_others_are_kept(folder, first):
    assert first.returncode == 1
    assert "1 of 4 trainings failed (0-0.3y: no training film" in first.stderr
    assert "Traceback" not in first.stderr
    names = {
        json.loads(path.read_text())["name"]
        for path in (folder / "artifacts/fracture-model").glob("*/summary.json")
    }
    assert names == {"generalist", "0.3-10y", "10-19y"}


def test_results_lie_where_people_look(folder, done):
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert Path(folder / result["report"]).stat().st_size > 50_000
    for group in ("0-10y", "10-19y"):
        pictures = folder / "results/gradcam_results" / group
        assert (pictures / "montage.png").exists()
        assert len(list(pictures.glob("*_*.png"))) >= 2
    assert (folder / "results/bundle/bundle.json").exists()
    assert [group["name"] for group in result["figures"]["groups"]] == ["all", "0-10y", "10-19y"]


def test_mlflow_holds_the_run_and_its_models(folder, done):
    client = mlflow.MlflowClient(f"sqlite:///{folder}/artifacts/mlflow.db")
    experiment = client.get_experiment_by_name("pedfrac")
    parent = json.loads(done.stdout)["mlflow_run"]
    runs = client.search_runs([experiment.experiment_id])
    by_id = {run.info.run_id: run for run in runs}
    assert by_id[parent].info.status == "FINISHED"
    assert by_id[parent].data.tags["data fingerprint"]
    models = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent]
    # the generalist's and the last group's keys do not depend on the other bounds
    assert {"age", "0-10y"} <= {run.info.run_name for run in models}
    for run in models:
        epochs = client.get_metric_history(run.info.run_id, "validation.auroc")
        assert [metric.step for metric in epochs] == [1, 2]
        kept = {file.path for file in client.list_artifacts(run.info.run_id, "model")}
        assert "model/model.safetensors" in kept


def test_a_second_run_trains_nothing(folder, done):
    before = json.loads(done.stdout)
    again = pedfrac(folder, "retrain", "--json")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "epoch 1/" not in again.stderr
    after = json.loads(again.stdout)
    assert after["trained"] == before["trained"]
    assert after["evaluated"] == before["evaluated"]


def test_films_are_predicted_with_and_without_ages(folder, done):
    ages = folder / "data/dataset.csv"
    arguments = ["predict", "data/images_part1", "--bundle=results/bundle", "--json"]
    known = pedfrac(folder, *arguments, f"--ages={ages}", f"--output={folder}/scores.csv")
    assert known.returncode == 0, known.stderr[-3000:]
    assert {film["routed_by"] for film in json.loads(known.stdout)["films"]} == {"age"}
    assert (folder / "scores.csv").exists()
    hidden = json.loads(pedfrac(folder, *arguments).stdout)["films"]
    assert {film["routed_by"] for film in hidden} == {"film"}
    assert all(0 <= film["probability"] <= 1 for film in hidden)


def test_a_wrong_value_is_refused_before_anything_runs(folder):
    refused = pedfrac(folder, "retrain", **{"fracture.training.imbalance": "both"})
    assert refused.returncode == 1
    assert "fracture.training.imbalance" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
