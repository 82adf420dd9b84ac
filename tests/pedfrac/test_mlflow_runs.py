"""MLflow's store where it is made by several at once, is away, or is slow to answer."""

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pedfrac import mlflow_runs
from pedfrac.config.locations import TrackingConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.errors import PedfracError
from pedfrac.pipeline.preflight_outputs import output_faults
from pedfrac.promotion.registry import Registry

OPEN = """
import sys
from pathlib import Path
from pedfrac import mlflow_runs
from pedfrac.config.locations import TrackingConfig
print(mlflow_runs._open_experiment(TrackingConfig(), Path(sys.argv[1]))[1])
"""


def test_first_commands_at_once_share_one_new_store(tmp_path):
    own = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(tmp_path / "artifacts")],
            env=own,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in begun]
    assert [process.returncode for process in begun] == [0, 0], said
    assert said[0][0] == said[1][0] != ""


def test_a_server_that_does_not_answer_is_named_in_time(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(mlflow_runs, "SLOW", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            caplog.at_level(logging.WARNING, "pedfrac"),
            pytest.raises(PedfracError, match=f"MLflow at {uri}: ") as raised,
            mlflow_runs.start_run(TrackingConfig(uri=uri), tmp_path, "run", {}),
        ):
            pass
    assert f"still waiting for MLflow at {uri}" in caplog.text
    assert "\n" not in str(raised.value)


@pytest.fixture
def moved(tmp_path, monkeypatch):
    """A store that holds a run, moved to another folder; the old folder is given, too."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before, now = tmp_path / "be fore/artifacts", tmp_path / "now/artifacts"
    with mlflow_runs.start_run(TrackingConfig(), before, "retrain", {}) as run:
        run.log_confusion([[1]], "kept")
    now.parent.mkdir()
    before.rename(now)
    return before, now


def test_a_store_that_was_moved_writes_nothing_into_its_old_place(moved):
    before, now = moved
    told = f"was moved here, but MLflow still keeps files .* in {before}; .*ln -s {now} '{before}'"
    with (
        pytest.raises(PedfracError, match=told) as raised,
        mlflow_runs.start_run(TrackingConfig(), now, "retrain", {}),
    ):
        pass
    assert "\n" not in str(raised.value) and not before.exists()
    with pytest.raises(PedfracError, match=told):
        Registry.of(TrackingConfig(), now)
    config = RetrainConfig.model_validate({"data": {"root": "data"}, "artifacts": str(now)})
    assert dict(output_faults(config))["tracking.uri"] == str(raised.value)


def test_a_moved_store_works_once_its_old_place_leads_to_the_new(moved):
    before, now = moved
    before.symlink_to(now)
    with mlflow_runs.start_run(TrackingConfig(), now, "retrain", {}) as run:
        run.log_confusion([[2]], "kept")
    for one in run.client.search_runs([run.experiment_id]):
        (name,) = [file.path for file in run.client.list_artifacts(one.info.run_id)]
        assert Path(run.client.download_artifacts(one.info.run_id, name)).is_file()
    assert len(list(now.glob("mlflow-files/*/artifacts/kept.json"))) == 2
    assert Registry.of(TrackingConfig(), now).versions() == []


def test_a_store_that_several_folders_share_was_not_moved(tmp_path):
    shared = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")
    for folder in ("first", "second"):
        with mlflow_runs.start_run(shared, tmp_path / folder, "retrain", {}):
            pass
