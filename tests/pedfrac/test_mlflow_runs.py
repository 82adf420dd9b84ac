"""MLflow's store where it is made by several at once, is away, or is slow to answer."""

import logging
import os
import socket
import subprocess
import sys

import pytest

from pedfrac import mlflow_runs
from pedfrac.config.locations import TrackingConfig
from pedfrac.errors import PedfracError

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
