"""Preflight: what would end a retraining is said before anything is computed, all at once."""

import json
import socket
from pathlib import Path

import pandas as pd
import pytest
import torch
from commands import TINY, pedfrac
from safetensors.torch import save_file

from pedfrac.config.loading import load_config
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.config.training import ModelConfig
from pedfrac.errors import PedfracError
from pedfrac.models.classifier import build_model
from pedfrac.phantoms.dataset import write_phantoms
from pedfrac.pipeline import preflight_outputs
from pedfrac.pipeline.keys import store_of
from pedfrac.pipeline.preflight import preflight, require_sound
from pedfrac.pipeline.preflight_scope import WHOLE, Scope

VIT = {"fracture.model.backbone": "vit_tiny_patch16_224", "fracture.model.options": "{depth: 1}"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantoms(root, PhantomConfig(images=120, scale=0.1, workers=1))
    return root


@pytest.fixture
def config(data, tmp_path, monkeypatch):
    """Return a function that makes a small configuration with changes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def make(**changes):
        settings = TINY | {"data.root": data} | changes
        return load_config(None, [f"{name}={value}" for name, value in settings.items()])

    return make


def found(config, scope=WHOLE) -> dict[str, str]:
    """Return what would stop a run, by where it is."""
    return {one.where: one.what for one in preflight(config, scope) if one.stops}


def test_a_sound_configuration_has_no_findings_and_leaves_nothing(config, tmp_path):
    assert found(config()) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes", [VIT, VIT | {"fracture.model.weights": "none"}])
def test_a_vit_passes(config, changes):
    assert found(config(**changes)) == {}


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"fracture.model.backbone": "convnextv2_atoo"}, "fracture.model", "near it: convnextv2_a"),
        ({"age.model.backbone": "swin_tinny"}, "age.model", "timm has no such model"),
        ({"age.model.backbone": "resnet18.nope"}, "age.model", "no weights tagged 'nope'"),
        ({"fracture.model.options": "{depht: 1}"}, "fracture.model", "keyword argument 'depht'"),
        (
            VIT
            | {"fracture.model.backbone": "hiera_tiny_224", "fracture.model.size": 224}
            | {"fracture.model.options": "{}"},
            "fracture.model",
            "hiera_tiny_224: no heat maps",
        ),
        (
            {"age.model.backbone": "resnet18", "age.model.options": "{global_pool: ''}"},
            "age.model",
            "resnet18 ",
        ),
        ({"fracture.model.weights": "gone.pth"}, "fracture.model.weights", "no such file"),
        ({"runtime.device": "cuda:9"}, "runtime.device", "GPUs are visible here"),
        ({"data.root": "nowhere"}, "data", "nowhere/dataset.csv: is missing"),
        ({"data.images": False}, "data.images", "set data.images to true"),
        ({"split.file": "gone.csv"}, "data", "gone.csv: cannot be read"),
        ({"split.previous": "gone.csv"}, "data", "gone.csv: cannot be read"),
        ({"cohort.age_bounds": "0,19"}, "cohort.age_bounds", "needs two"),
        ({"cohort.age_bounds": "0,18.9,19"}, "cohort.age_bounds", "18.9-19y (no fractured, no"),
        ({"split.folds": 400}, "data", "cannot be cut into 400 folds"),
        ({"results": "/proc/results"}, "results", "/proc: cannot be written"),
        ({"artifacts": "/dev/null/store"}, "artifacts", "/dev/null: is a file"),
        ({"tracking.uri": "http://localhost:9"}, "tracking.uri", "does not answer"),
        ({"tracking.uri": "sqlite:////proc/x/m.db"}, "tracking.uri", "/proc: cannot be written"),
    ],
)
def test_each_fault_is_found_by_its_field(config, changes, where, what):
    said = found(config(**changes))
    assert what in said[where], said


def test_weights_that_do_not_fit_are_found(config, tmp_path):
    other = ModelConfig(backbone="resnet10t", size=48, weights="none")
    save_file(build_model(other, 2).network.state_dict(), tmp_path / "other.safetensors")
    (tmp_path / "cut.pth").write_bytes(b"PK")
    for name, what in (
        ("other.safetensors", "does not fit convnextv2_atto"),
        ("cut.pth", "read as"),
    ):
        said = found(config(**{"fracture.model.weights": tmp_path / name}))
        assert what in said["fracture.model.weights"], said


def test_weights_that_fit_pass(config, tmp_path):
    small = config().fracture.model
    save_file(build_model(small, 2).network.state_dict(), tmp_path / "own.safetensors")
    assert found(config(**{"fracture.model.weights": tmp_path / "own.safetensors"})) == {}


def test_every_finding_is_said_at_once(config):
    changes = {"age.model.backbone": "swin_tinny", "results": "/proc/x", "data.root": "nowhere"}
    with pytest.raises(PedfracError, match="nothing was computed, since 3 things are wrong") as e:
        require_sound(config(**changes))
    assert all(word in str(e.value) for word in ("(1) data:", "(2) age.model:", "(3) results:"))


def test_an_empty_test_set_is_found(config, data, tmp_path):
    table = pd.read_csv(data / "dataset.csv", dtype=str)
    patients = table["patient_id"].astype(int)
    split = table[["filestem"]].assign(
        split=(patients % 3 == 0).map({True: "valid", False: "train"})
    )
    split.to_csv(tmp_path / "split.csv", index=False)
    assert "the test set is empty" in found(config(**{"split.file": "split.csv"}))["split"]


def test_a_disk_without_room_is_found(config, monkeypatch):
    usage = preflight_outputs.shutil.disk_usage("/")
    monkeypatch.setattr(
        preflight_outputs.shutil, "disk_usage", lambda folder: usage._replace(free=10**5)
    )
    assert "0.0 GB are free" in found(config())["artifacts"]


def test_the_room_of_a_run_is_that_of_packs_and_networks(config):
    def needed(images, **changes):
        settings = config(**changes)
        return preflight_outputs.bytes_needed(settings, store_of(settings), images)

    assert needed(1100) - needed(100) == 1000 * 48**2
    assert needed(1100, **{"age.model.size": 96}) > 1100 * (48**2 + 96**2)


def test_a_server_that_never_answers_is_given_up_in_seconds(config, monkeypatch):
    monkeypatch.setattr(preflight_outputs, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "does not answer" in found(config(**{"tracking.uri": uri}))["tracking.uri"]


def test_an_unreachable_object_store_is_found(config, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:1")  # without http://
    assert "localhost:1" in found(config(artifacts="s3://bucket/prefix"))["artifacts"]


def test_an_object_store_that_takes_files_passes(config, s3_root):
    assert found(config(artifacts=s3_root)) == {}


def test_labels_that_are_elsewhere_are_found(config, tmp_path, data):
    root = tmp_path / "data"
    root.mkdir()
    for path in data.iterdir():
        if path.name != "folder_structure":
            (root / path.name).symlink_to(path)
    (root / "labels").mkdir()
    assert "120 of 120 images have no label file" in found(config(**{"data.root": root}))["data"]


OF_FRACTURE = {"fracture.model.backbone": "convnextv2_atoo"}
OF_AGE = {"age.model.backbone": "swin_tinny"}
NO_MAPS = VIT | {"fracture.model.backbone": "hiera_tiny_224", "fracture.model.size": 224}
NO_MAPS |= {"fracture.model.options": "{}"}
SEARCH, ALONE = Scope("generalist"), Scope("generalist", alone=True)
AGE_ALONE, OLD_ALONE = Scope("age", alone=True), Scope("10-19y", alone=True)


@pytest.mark.parametrize(
    ("changes", "stopped", "not_stopped"),
    [
        (OF_FRACTURE, (SEARCH, ALONE, OLD_ALONE), (AGE_ALONE, Scope("age"))),
        (OF_AGE, (AGE_ALONE, Scope("age")), (SEARCH, ALONE, OLD_ALONE)),
        (NO_MAPS, (SEARCH,), (ALONE, OLD_ALONE, AGE_ALONE)),
        ({"results": "/proc/x"}, (SEARCH,), (ALONE, AGE_ALONE)),
        ({"artifacts": "/dev/null/store"}, (SEARCH, ALONE, AGE_ALONE), ()),
        ({"tracking.uri": "http://localhost:9"}, (SEARCH, ALONE, AGE_ALONE), ()),
        ({"data.root": "nowhere"}, (SEARCH, ALONE, AGE_ALONE), ()),
        ({"data.images": False}, (SEARCH, ALONE, AGE_ALONE), ()),
        ({"runtime.device": "cuda:9"}, (SEARCH, ALONE, AGE_ALONE), ()),
        ({"cohort.age_bounds": "0,19"}, (AGE_ALONE,), (SEARCH, ALONE)),
        (
            {"cohort.age_bounds": "0,10,18.9,19"},
            (Scope("18.9-19y"),),
            (SEARCH, ALONE, Scope("0-10y"), Scope("10-18.9y")),
        ),
        ({"split.file": "gone.csv"}, (SEARCH, ALONE, AGE_ALONE), ()),
    ],
)
def test_a_training_is_stopped_by_what_concerns_it(config, changes, stopped, not_stopped):
    settings = config(**changes)
    for scope in stopped:
        assert found(settings, scope), scope
    for scope in not_stopped:
        assert found(settings, scope) == {}, scope


def test_a_generalist_without_a_kind_of_images_is_found(config, data, tmp_path):
    table = pd.read_csv(data / "dataset.csv", dtype=str, keep_default_na=False)
    fractured = set(table.loc[table["fracture_visible"] == "1", "patient_id"])
    part = table["patient_id"].isin(fractured).map({True: "train", False: "valid"})
    table[["filestem"]].assign(split=part).to_csv(tmp_path / "split.csv", index=False)
    said = found(config(**{"split.file": "split.csv"}), ALONE)
    assert list(said) == ["cohort.age_bounds"]
    assert "validation lacks images of all ages (no fractured)" in said["cohort.age_bounds"]


def test_a_network_of_no_such_name_is_refused(config):
    with pytest.raises(PedfracError, match="'5y'; allowed are generalist, age, 0-10y, 10-19y"):
        preflight(config(), Scope("5y"))


@pytest.mark.parametrize(
    ("command", "changes"),
    [("train-age", OF_AGE), ("train-fracture", OF_FRACTURE), ("search", OF_FRACTURE)],
)
def test_commands_that_train_look_before_they_compute(data, tmp_path, command, changes):
    done = pedfrac(tmp_path, command, **TINY | {"data.root": data} | changes)
    assert done.returncode == 1
    assert "nothing was computed, since 1 thing is wrong: (1) " in done.stderr
    assert not list(tmp_path.glob("artifacts/*/*/manifest.json"))


def test_networks_take_no_memory_of_weights():
    from pedfrac.age_groups import AgeGroups
    from pedfrac.pipeline.preflight_networks import check_network, weight_bytes

    large = ModelConfig(backbone="convnextv2_huge", size=384, weights="none")  # 2.6 GB of weights
    ages = AgeGroups((0, 10, 19))
    check_network(large, ages, None)
    assert weight_bytes(large, ages, None) > 2.6e9
    assert torch.zeros(1).device.type == "cpu"


def test_the_command_says_all_and_fails(data, tmp_path):
    done = pedfrac(
        tmp_path,
        *("check", "--json", "--data", data),
        **TINY | {"data.root": data, "age.model.backbone": "swin_tinny", "results": "/proc/x"},
    )
    assert done.returncode == 1
    findings = json.loads(done.stdout)["findings"]
    assert [one["where"] for one in findings if one["stops"]] == ["age.model", "results"]
    assert done.stderr.splitlines()[-1].endswith(
        f"2 of {len(findings)} findings would stop a retraining"
    )
    assert not (tmp_path / "artifacts").exists()


def test_retraining_looks_before_it_computes(data, tmp_path):
    settings = TINY | {"data.root": data, "results": "/proc/x", "age.model.backbone": "swin_tinny"}
    done = pedfrac(tmp_path, "retrain", **settings)
    assert done.returncode == 1
    assert "nothing was computed, since 2 things are wrong: (1) age.model" in done.stderr
    kept = [path for path in Path(tmp_path / "artifacts").glob("*/*") if path.is_dir()]
    assert kept == []
