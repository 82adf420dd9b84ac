"""A whole retraining through the command line: real Prefect, real processes, small phantoms."""

import csv
import json
import re
from pathlib import Path

import mlflow
import pytest
from commands import pedfrac, tiny

from pedfrac.config.locations import TrackingConfig
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.phantoms.dataset import write_phantoms
from pedfrac.promotion.registry import Registry
from pedfrac.reporting.schema import read_findings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a data set of phantoms, all files of its infants cut short."""
    root = tmp_path_factory.mktemp("run")
    write_phantoms(root / "data", PhantomConfig(images=220, scale=0.2, workers=1))
    with (root / "data/dataset.csv").open(encoding="utf-8-sig") as file:
        infants = [row["filestem"] for row in csv.DictReader(file) if float(row["age"]) < 3]
    assert infants
    for stem in infants:
        (image,) = root.glob(f"data/images*/{stem}.png")
        image.write_bytes(image.read_bytes()[:500])
    return root


@pytest.fixture(scope="module")
def first(folder):
    """A retraining in which one group fails: what its images hold is seen when they are read."""
    return tiny(folder, "retrain", "--json", **{"cohort.age_bounds": "0,3,10,19"})


@pytest.fixture(scope="module")
def done(folder, first):
    """A finished retraining after the one that failed."""
    return tiny(folder, "retrain", "--json", **{"runtime.parallel": 2})


def test_a_failing_group_is_named_and_the_others_are_kept(folder, first):
    assert first.returncode == 1
    assert "1 of 5 trainings failed (0-3y: no training image" in first.stderr
    assert "Traceback" not in first.stderr
    names = {
        json.loads(path.read_text())["name"]
        for path in (folder / "artifacts/fracture-model").glob("*/summary.json")
    }
    assert names == {"generalist", "3-10y", "10-19y"}


def test_the_log_tells_news_only(first):
    for news in ("pack/[0-9a-f]+ made", r"generalist: epoch 2/2 validation loss [\d.]+, auroc"):
        assert re.search(news, first.stderr)
    assert "Finished in state" not in first.stderr
    assert first.stderr.count("0-3y: no training image; at least one") == 3  # where, and at the end


def test_processes_side_by_side_share_one_server(done):
    assert "temporary server" not in done.stderr  # Prefect tells of each that it starts


def test_results_lie_where_people_look(folder, done):
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["report"] == "results/report.html"
    assert Path(folder / result["report"]).stat().st_size > 50_000
    for group in ("0-10y", "10-19y"):
        pictures = folder / "results/gradcam_results" / group
        assert (pictures / "montage.png").exists()
        assert len(list(pictures.glob("*_*.png"))) >= 2
    assert (folder / "results/bundle/bundle.json").exists()
    for page in ("model_card.md", "checklist.md", "metrics.schema.json"):
        assert (folder / "results" / page).stat().st_size > 5_000
    found = read_findings(folder / "results/metrics.json")
    for metrics in (result["metrics"], found):
        assert [group["name"] for group in metrics["groups"]] == ["all", "0-10y", "10-19y"]


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


def test_the_bundle_is_the_challenger_of_the_registry(folder, done):
    result = json.loads(done.stdout)
    registry = Registry.of(TrackingConfig(), folder / "artifacts")
    version = registry.holder("challenger")
    assert (result["version"], result["mlflow_run"]) == (version.number, version.run_id)
    keys = result["evaluated"] | {"report": result["report_key"]} | result["prepared"]
    assert version.tags.items() >= keys.items()
    assert len(version.tags["data fingerprint"]) == len(version.tags["code"]) == 64


def test_a_second_run_trains_nothing(folder, done):
    before = json.loads(done.stdout)
    again = tiny(folder, "retrain", "--json")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "epoch 1/" not in again.stderr
    after = json.loads(again.stdout)
    assert after["trained"] == before["trained"]
    assert after["evaluated"] == before["evaluated"]
    assert after["version"] == before["version"]


def scored(done):
    """Return the images of a prediction but for those that were cut short."""
    images = json.loads(done.stdout)["images"]
    assert all("truncated" in image["error"] for image in images if image["error"])
    return [image for image in images if not image["error"]]


def test_images_are_predicted_with_and_without_ages(folder, done):
    ages = folder / "data/dataset.csv"
    arguments = ["predict", "data/images_part1", "--bundle=results/bundle", "--json"]
    known = pedfrac(folder, *arguments, f"--ages={ages}", f"--output={folder}/scores.csv")
    assert known.returncode == 0, known.stderr[-3000:]
    assert {image["routed_by"] for image in scored(known)} == {"age"}
    assert (folder / "scores.csv").exists()
    hidden = scored(pedfrac(folder, *arguments))
    assert {image["routed_by"] for image in hidden} == {"image"}
    assert all(0 <= image["probability"] <= 1 for image in hidden)


def test_a_wrong_value_is_refused_before_anything_runs(folder):
    refused = tiny(folder, "retrain", **{"fracture.training.imbalance": "both"})
    assert refused.returncode == 1
    assert "fracture.training.imbalance" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
