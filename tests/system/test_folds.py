"""Folds held out in turn: a run that is killed goes on, and no network scores whom it knows."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from commands import TINY, tiny

from pedfrac import pipeline
from pedfrac.config.loading import load_config
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.data.split import load_split
from pedfrac.phantoms.dataset import write_phantoms
from pedfrac.storage.lineage import Lineage
from pedfrac.storage.store import ArtifactStore

FOLDS = 2
FOLDED = {"split.folds": FOLDS, "explanation.images_per_group": 1}
MODELS = ("age-model", "fracture-model")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a data set of phantoms."""
    root = tmp_path_factory.mktemp("folds")
    write_phantoms(root / "data", PhantomConfig(images=160, scale=0.2, workers=1))
    return root


def models(folder: Path) -> dict[str, int]:
    """Return when the manifest of each trained model was written."""
    found = [
        path for kind in MODELS for path in (folder / "artifacts" / kind).glob("*/manifest.json")
    ]
    return {
        f"{path.parent.parent.name}/{path.parent.name}": path.stat().st_mtime_ns for path in found
    }


@pytest.fixture(scope="module")
def killed(folder) -> dict[str, int]:
    """The models that a run has left which was killed during its fifth training."""
    settings = [f"--set={name}={value}" for name, value in (TINY | FOLDED).items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "retrain", *settings],
        cwd=folder,
        env=os.environ | {"PREFECT_HOME": str(folder / "prefect")},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 400
    while len(models(folder)) < 5 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    return models(folder)


@pytest.fixture(scope="module")
def refused(folder, killed) -> str:
    """What ``evaluate`` says of the networks that the killed run has not trained."""
    done = tiny(folder, "evaluate", **FOLDED)
    assert done.returncode == 1 and models(folder) == killed, done.stderr[-3000:]
    return done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def result(folder, refused):
    """What ``evaluate`` prints once a second run has trained what was missing."""
    done = tiny(folder, "retrain", **FOLDED)
    assert done.returncode == 0, done.stderr[-3000:]
    done = tiny(folder, "evaluate", "--json", **FOLDED)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def store(folder, result) -> ArtifactStore:
    return ArtifactStore(str(folder / "artifacts"))


@pytest.fixture(scope="module")
def pooled(store):
    """The pooled predictions, and the artifact that holds them."""
    (artifact,) = store.of_kind("folds")
    return pd.read_parquet(artifact.file("predictions.parquet")), artifact


def patients(split, part: str) -> set[int]:
    return set(split.table.loc[split.table["part"] == part, "patient_id"])


def test_a_killed_run_trains_only_what_is_missing(folder, killed, result):
    after = models(folder)
    assert 5 <= len(killed) < len(after) == (1 + FOLDS) * 4
    assert {key: after[key] for key in killed} == killed


def test_evaluate_names_what_is_not_trained_and_trains_nothing(refused):
    assert refused.startswith("pedfrac: not trained yet with this data and configuration: ")
    assert "fold 2 of 2" in refused and "generalist; " not in refused
    assert "'pedfrac retrain' with the same options trains what is missing" in refused


def test_pooled_metrics_stand_beside_those_of_the_test_set(result, pooled):
    folds, table = result["metrics"]["folds"], pooled[0]
    assert (folds["folds"], folds["images"]) == (FOLDS, len(table))
    rows, tested = folds["groups"], result["metrics"]["groups"]
    assert [row["name"] for row in rows] == [row["name"] for row in tested]
    assert [row.keys() for row in rows] == [row.keys() for row in tested]
    assert sum(row["images"] for row in rows[1:]) == len(table) > 3 * tested[0]["images"]
    for row in rows:
        area = row["models"]["bundle"]["auroc"]
        assert area["low"] <= area["value"] <= area["high"]


def test_each_image_outside_the_test_set_is_held_out_once(store, result, pooled):
    (artifact,) = store.of_kind("split")
    whole = load_split(artifact.path)
    tested = patients(whole, "test")
    rest = whole.table.loc[~whole.table["patient_id"].isin(tested), "filestem"]
    assert sorted(pooled[0]["filestem"]) == sorted(rest)
    assert pooled[0].groupby("patient_id")["fold"].nunique().max() == 1


def test_no_network_scores_a_patient_whom_it_has_seen(store, pooled):
    table, artifact = pooled
    seen_by_all = []
    for number in range(FOLDS):
        scores = store.get(artifact.manifest.parents[f"fold-{number}"].key)
        bundle = store.get(scores.manifest.parents["bundle"].key)
        held_out = set(table.loc[table["fold"] == number, "patient_id"])
        networks = {
            key for key in Lineage.of(store).ancestors([bundle.key]) if key.startswith(MODELS)
        }
        assert len(networks) == 4
        for key in (*networks, bundle.key):
            split = load_split(store.get(store.get(key).manifest.parents["split"].key).path)
            seen = patients(split, "train") | patients(split, "validation")
            assert held_out == patients(split, "test") and not held_out & seen
        seen_by_all.append(networks)
    assert not seen_by_all[0] & seen_by_all[1]


def test_the_networks_of_the_bundle_are_those_of_a_run_without_folds(folder, result, monkeypatch):
    monkeypatch.chdir(folder)
    plain = TINY | FOLDED | {"split.folds": "none"}
    config = load_config(None, [f"{name}={value}" for name, value in plain.items()])
    records = pipeline.read_records(config)
    cohort = pipeline.select_cohort(config, records)
    prepared = pipeline.Prepared(
        records=records,
        cohort=cohort,
        split=pipeline.split_patients(config, cohort),
        fracture_pack=pipeline.pack_images(config, records, config.fracture.model),
        age_pack=pipeline.pack_images(config, records, config.age.model),
    )
    generalist = pipeline.fracture_training(config, prepared)
    specialists = [
        pipeline.fracture_training(config, prepared, group, generalist.key)
        for group in range(len(config.cohort.ages))
    ]
    trainings = [generalist, pipeline.age_training(config, prepared), *specialists]
    assert len(trainings) == 4 and all(training.done for training in trainings)
