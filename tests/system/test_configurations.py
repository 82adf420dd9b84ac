"""Whole retrainings that differ by configuration alone: other ages, losses, networks and splits.

The data set has one image of each fault, so each run also goes on without what cannot be used.
"""

import csv
import json

import mlflow
import pytest
from commands import pedfrac, tiny

from pedfrac.config.phantoms import PhantomConfig
from pedfrac.data.split import PLACES
from pedfrac.phantoms.dataset import FAULTS, write_phantoms

OTHER = {
    "cohort.age_bounds": "0,6,12,19",
    "split.folds": 3,
    "split.fold": 1,
    "split.balance_training": True,
    "fracture.training.imbalance": "focal",
    "fracture.training.focal_gamma": 1.5,
    "fracture.model.backbone": "test_resnet",
    "fracture.model.options": "{}",
    "age.model.backbone": "test_efficientnet",
    "age.model.options": "{}",
    "age.head": "ordinal",
    "age.training.imbalance": "weighted",
    "data.missing": "drop",
    "explanation.method": "hirescam",
    "pixels.markers": "off",
    "tracking.registry": False,
}
GROUPS = ["0-6y", "6-12y", "12-19y"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with phantoms, nine of them faulty."""
    root = tmp_path_factory.mktemp("configurations")
    write_phantoms(root / "data", PhantomConfig(images=240, scale=0.15, faults=1, workers=1))
    return root


@pytest.fixture(scope="module")
def result(folder):
    """What a retraining under the other configuration printed."""
    done = tiny(folder, "retrain", "--json", **OTHER)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def read(folder, key: str, name: str):
    """Return a JSON file of an artifact."""
    return json.loads((folder / "artifacts" / key / name).read_text())


def test_faulty_images_are_named_and_the_run_goes_on(folder, result):
    records = read(folder, result["prepared"]["records"], "summary.json")
    assert records["dropped"] == len(FAULTS) and records["usable"] == 240 - len(FAULTS) + 1
    assert "image-truncated" in (folder / result["report"]).read_text()


def test_age_groups_are_those_of_the_bounds_everywhere(folder, result):
    assert [group["name"] for group in result["metrics"]["groups"]][:4] == ["all", *GROUPS]
    assert {path.name for path in (folder / "results/gradcam_results").glob("*y")} == set(GROUPS)
    bundle = json.loads((folder / "results/bundle/bundle.json").read_text())
    assert bundle["age_bounds"] == [0, 6, 12, 19]
    assert len(bundle["scorers"]["bundle"]["thresholds"]) == 3
    names = {path.stem for path in (folder / "results/bundle").glob("*.safetensors")}
    networks = {"age", "generalist", *(f"specialist-{name}" for name in GROUPS)}
    assert names == networks | {"profile"}


def test_networks_and_pixels_are_as_configured(folder, result):
    bundle = json.loads((folder / "results/bundle/bundle.json").read_text())
    for part, backbone in (("fracture", "test_resnet"), ("age", "test_efficientnet")):
        assert bundle[part]["model"]["backbone"] == backbone
        assert bundle[part]["preparation"] == {"size": 48, "markers": "off", "version": 1}


def test_the_age_is_estimated_in_years(result):
    error = result["metrics"]["age"]["mean_absolute_error"]
    assert 0 < error["low"] <= error["value"] <= error["high"] < 19


def test_imbalance_is_corrected_once_and_written_down(folder, result):
    for key in (result["trained"]["generalist"], *result["trained"]["specialists"]):
        training = read(folder, key, "manifest.json")["config"]["training"]
        assert (training["imbalance"], training["focal_gamma"]) == ("focal", 1.5)
    client = mlflow.MlflowClient(f"sqlite:///{folder}/artifacts/mlflow.db")
    parent = client.get_run(result["mlflow_run"])
    assert parent.data.params["fracture.training.imbalance"] == "focal"
    assert parent.data.params["age.training.imbalance"] == "weighted"
    assert result["version"] is None
    assert client.list_artifacts(result["mlflow_run"], "bundle")
    below = f"tags.mlflow.parentRunId = '{result['mlflow_run']}'"
    models = client.search_runs([parent.info.experiment_id], filter_string=below)
    losses = {run.info.run_name: run.data.params["training.imbalance"] for run in models}
    assert losses == {"age": "weighted"} | dict.fromkeys(["generalist", *GROUPS], "focal")


def test_the_split_is_one_of_three_folds(folder, result):
    report = read(folder, result["prepared"]["split"], "split.json")
    folds = {fold["fold"]: fold["patients"] for fold in report["folds"]}
    assert set(folds) == {0, 1, 2} and max(folds.values()) - min(folds.values()) <= 3
    with (folder / "artifacts" / result["prepared"]["split"] / "split.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["fold"] for row in rows if row["part"] == "validation"} == {"1"}
    assert {row["fold"] for row in rows if row["part"] == "train"} == {"0", "2"}
    assert set(report["disjoint"]["shared"].values()) == {0}


def test_training_has_as_many_fractured_as_normal_images_in_each_year(folder, result):
    with (folder / "artifacts" / result["prepared"]["split"] / "split.csv").open() as file:
        parts = {row["filestem"]: row["part"] for row in csv.DictReader(file)}
    with (folder / "artifacts" / result["prepared"]["cohort"] / "cohort.csv").open() as file:
        images = [row for row in csv.DictReader(file) if parts[row["filestem"]] == "train"]
    years = {int(float(image["age"])) for image in images}
    for year in years:
        labels = [f["fracture_visible"] for f in images if int(float(f["age"])) == year]
        assert labels.count("True") == labels.count("False") > 0
    summary = read(folder, result["trained"]["generalist"], "summary.json")
    assert summary["train"]["classes"] == [len(images) // 2] * 2


def test_the_bundle_scores_images(folder, result):
    lines = (folder / "data/dataset.csv").read_text(encoding="utf-8-sig").splitlines()
    once = {line.split(",")[0]: line.replace(",190,", ",,") for line in lines}  # planted faults
    (folder / "ages.csv").write_text("\n".join(once.values()))
    images = ["data/images_part1", "--bundle=results/bundle", "--ages=ages.csv"]
    done = pedfrac(folder, "predict", *images, "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    scored = [image for image in json.loads(done.stdout)["images"] if not image["error"]]
    assert {image["age_group_used"] for image in scored} == set(GROUPS)
    assert {image["markers"] for image in scored} == {"kept"}
    assert all(0 <= image["probability"] <= 1 for image in scored)


def test_another_fold_keeps_the_test_set(folder, result):
    """The folds of one split share its test images, and each validates on its own patients."""
    done = tiny(folder, "split", "--json", **OTHER | {"split.fold": 2})
    assert done.returncode == 0, done.stderr[-3000:]
    other = json.loads(done.stdout)["artifact"]
    parts = []
    for key in (result["prepared"]["split"], other):
        with (folder / "artifacts" / key / "split.csv").open() as file:
            rows = list(csv.DictReader(file))
        parts.append({p: {r["patient_id"] for r in rows if r["part"] == p} for p in PLACES})
    first, second = parts
    assert first["test"] == second["test"]
    assert not first["validation"] & second["validation"]
