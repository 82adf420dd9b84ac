"""What a parent says where a child's run completed, but its artifact is not where it looks."""

import socket

import pytest

from flows.infrastructure.handover import explain_missing, made
from pedfrac.config.retrain import RetrainConfig
from pedfrac.storage.inputs import Inputs
from pedfrac.storage.store import ArtifactStore


def config(root) -> RetrainConfig:
    return RetrainConfig.model_validate({"data": {"root": "."}, "artifacts": str(root)})


@pytest.fixture
def expected():
    return Inputs(kind="age-model", config={"bounds": [0, 5], "epochs": 30})


def test_a_child_tells_its_key_and_where_it_lies(tmp_path):
    state = made(config(tmp_path), "age-model/12")
    assert state.is_completed()
    assert state.message == f"age-model/12 at {socket.gethostname()}:{tmp_path}/age-model/12"


def test_another_store_is_named(tmp_path, expected):
    state = made(config(tmp_path / "worker"), expected.key)
    said = explain_missing("age", state, expected, config(tmp_path / "parent"))
    assert said == (
        f"age: its run completed and left {expected.key} at {socket.gethostname()}:"
        f"{tmp_path}/worker/{expected.key}, but nothing is at {tmp_path}/parent/{expected.key}: "
        "workers and retraining must share one artifact store"
    )


def test_another_artifact_is_compared_setting_by_setting(tmp_path, expected):
    other = ArtifactStore(tmp_path).produce(
        "age-model",
        lambda folder: (folder / "f").touch(),
        config={"bounds": [0, 5.0], "epochs": 3},
    )
    said = explain_missing("age", made(config(tmp_path), other.key), expected, config(tmp_path))
    assert said == (
        f"age: its run completed, but made {other.key} instead of {expected.key}: "
        "setting epochs is 3 here and 30 there"
    )
