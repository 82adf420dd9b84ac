"""A published split reproduced through the command line: a leaking one, on phantoms."""

import json

import numpy as np
import pandas as pd
import pytest
from commands import tiny

from pedfrac.config.phantoms import PhantomConfig
from pedfrac.phantoms.dataset import write_phantoms


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with phantoms and a split by image of them, as lists of each part."""
    root = tmp_path_factory.mktemp("reproduce")
    write_phantoms(root / "data", PhantomConfig(images=220, scale=0.15, workers=1))
    table = pd.read_csv(root / "data/dataset.csv", encoding="utf-8-sig")
    drawn = np.random.default_rng(1).random(len(table))
    part = np.select([drawn < 0.12, drawn < 0.35], ["test", "valid"], "train")
    (root / "published").mkdir()
    for name in ("train", "valid", "test"):
        table[part == name].to_csv(root / "published" / f"{name}_data.csv", index=False)
    return root


@pytest.fixture(scope="module")
def images(folder):
    """The images as published, with their part."""
    return pd.concat(
        pd.read_csv(path, dtype={"filestem": "str"}).assign(part=path.stem.split("_")[0])
        for path in (folder / "published").iterdir()
    )


@pytest.fixture(scope="module")
def done(folder):
    """A finished reproduction."""
    return tiny(folder, "reproduce", "ruiyangju", "--split=published", "--json")


def test_the_leak_is_counted_and_every_test_image_scored(folder, images, done):
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    test = images[images["part"] == "test"]
    learnt = images.loc[images["part"] != "test", "patient_id"]
    leaking = test[test["patient_id"].isin(learnt)]
    assert result["split"]["leaking_images"] == len(leaking) > 0
    assert result["split"]["leaking_patients"] == leaking["patient_id"].nunique()
    assert any(f"{len(leaking)} of {len(test)} test images" in line for line in result["said"])
    assert any("not the published one" in line for line in result["said"])
    key = result["evaluated"]["evaluation"]
    scored = pd.read_parquet(folder / "artifacts" / key / "predictions.parquet")
    assert set(scored["filestem"]) == set(test["filestem"])


def test_no_patient_of_a_test_image_was_learnt_from(folder, images, done):
    key = json.loads(done.stdout)["prepared"]["split"]
    split = pd.read_csv(folder / "artifacts" / key / "split.csv")
    used = split[split["part"] != "left_out"]
    assert used.groupby("patient_id")["part"].nunique().max() == 1
    assert len(used) < len(images)


def test_published_metrics_stand_beside_those_here(done):
    result = json.loads(done.stdout)
    rows = {(row["metric"], row["of"]): row for row in result["side_by_side"]}
    assert rows["AP50 of class fracture", "boxes"]["published"]["value"] == 0.947
    assert rows["AP50 of class fracture", "boxes"]["here"] is None
    assert 0 <= rows["AUROC", "images"]["here"]["value"] <= 1
    assert rows["AUROC", "studies"]["published"] is None
    assert result["protocol"]["split"] == "by patient"
    assert result["protocol"]["url"].startswith("https://doi.org/")


def test_a_person_is_told_the_same(folder, done):
    again = tiny(folder, "reproduce", "ruiyangju", "--split=published")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "epoch 1/" not in again.stderr
    for line in json.loads(done.stdout)["said"]:
        assert line in again.stdout
    assert "0.947" in again.stdout
    assert "https://doi.org/10.1038/s41598-023-47460-7" in again.stdout
