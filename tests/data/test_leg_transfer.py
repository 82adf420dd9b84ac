"""The benchmark on real leg radiographs: its layout is right, its AUROC is by fold."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pedfrac.config.data import DataConfig
from pedfrac.config.training import FractureModelConfig
from pedfrac.data.records import read_records
from pedfrac.models.classifier import build_model

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "leg_transfer.py"
IMAGES = 150


RANDOM = ("fracture.model.weights=none",)
SMALL = ("fracture.model.size=32", "fracture.training.epochs=1")


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("leg_transfer", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_layout_holds_the_images_as_they_are_labelled(benchmark, tmp_path):
    if not benchmark.DATA.is_dir():
        pytest.skip(f"the leg images are not at {benchmark.DATA}")
    benchmark.write_layout(benchmark.DATA, tmp_path, IMAGES)
    records = read_records(DataConfig(root=str(tmp_path)))
    known = pd.read_csv(benchmark.DATA / "labels.csv").head(IMAGES)
    table = records.table.sort_values("timehash")
    assert table["fracture_visible"].tolist() == known["fractured"].astype(bool).tolist()
    assert table["metal"].tolist() == known["hardware"].astype(bool).tolist()
    assert table["patient_id"].tolist() == known["near_duplicate_group"].tolist()
    for image, name in zip(table["image"], known["filename"], strict=True):
        original = (benchmark.DATA / "images" / name).read_bytes()
        assert (tmp_path / image).read_bytes() == original
    # Of metal these images have no boxes. Nothing else may be wrong with them.
    assert set(records.issues["kind"]) == {"no-metal-boxes"}
    boxes = pd.read_csv(benchmark.DATA / "boxes.csv")
    drawn = boxes[boxes["filename"].isin(known["filename"])]
    read = records.boxes[["xc", "yc", "w", "h"]].to_numpy()
    assert len(read) > 0
    np.testing.assert_allclose(np.sort(read, axis=0), np.sort(drawn.iloc[:, 1:], axis=0), atol=1e-6)


def test_a_network_is_trained_and_scores_only_the_images_that_its_fold_holds_out(
    benchmark, tmp_path
):
    if not benchmark.DATA.is_dir():
        pytest.skip(f"the leg images are not at {benchmark.DATA}")
    benchmark.write_layout(benchmark.DATA, tmp_path / "data", IMAGES)
    folders = (f"data.root={tmp_path / 'data'}", f"artifacts={tmp_path / 'artifacts'}")
    settings = [*benchmark.SETTINGS, *folders, *SMALL]
    jobs = benchmark.make_jobs(settings, {benchmark.RANDOM: RANDOM}, folds=3, seeds=1)
    parts = [pd.read_csv(tmp_path / f"fold-{fold}.csv") for fold in range(3)]
    held_out = [set(part.loc[part["split"] == "test", "filestem"]) for part in parts]
    assert [len(jobs), sum(map(len, held_out))] == [3, len(set.union(*held_out))]
    scores = benchmark.train_and_score(jobs[1])
    assert set(scores["filestem"]) == held_out[1]
    assert scores["score"].between(0, 1).all() and scores["score"].nunique() > 1


def test_the_package_weights_are_a_start_that_the_pipeline_takes(benchmark, tmp_path):
    pytest.importorskip(benchmark.WEIGHTS_PACKAGE)
    file = tmp_path / "imagenet.safetensors"
    benchmark.write_imagenet_weights(file)
    config = FractureModelConfig(backbone=benchmark.BACKBONE, weights=str(file), size=64)
    loaded = build_model(config, 2).network.state_dict()
    fresh = build_model(config.model_copy(update={"weights": "none"}), 2).network.state_dict()
    same = [name for name in loaded if name.endswith("conv_pw.weight")]
    assert same and not any(loaded[name].equal(fresh[name]) for name in same)
    # Statistics of a trained network, not the zeros and ones of a new one.
    assert loaded["bn1.running_var"].std() > 0 == fresh["bn1.running_var"].std()


def test_images_are_ranked_within_their_fold_and_differences_are_paired(benchmark):
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.3
    images = pd.DataFrame({"filestem": [f"image{k:03d}" for k in range(400)]}).assign(
        patient_id=np.arange(400) // 2, fold=np.arange(400) // 100, fracture_visible=truth
    )
    good = truth + rng.normal(size=400)
    # A scale of its own for each fold must not matter.
    scores = pd.concat(
        images[["filestem"]].assign(network=name, seed=0, score=values)
        for name, values in {"plain": good, "scaled": good + 10 * images["fold"], "none": 0}.items()
    )
    metrics = benchmark.HeldOutFigures(images, scores, resamples=200)
    plain = metrics.area("plain")
    assert metrics.area("scaled") == plain
    assert metrics.area("none").value == 0.5
    none = metrics.difference("plain", "scaled")
    assert none.value == 0
    assert none.low <= 0 <= none.high
    gain = metrics.difference("plain", "none")
    assert gain.value == pytest.approx(plain.value - 0.5)
    assert 0 < gain.low < gain.value < gain.high
