"""The server of one command: it answers, it ends with the command, and it tells why it does not."""

import os
import subprocess
import sys

import psutil
import pytest

from flows.infrastructure.server import TemporaryServer
from pedfrac.errors import PedfracError

PROGRAM = """
from prefect import flow, get_client
from flows.infrastructure.server import temporary_server

@flow
def greet():
    with get_client(sync_client=True) as client:
        print(client.api_url, client.read_flow_runs()[0].name)

with temporary_server() as server:
    server.wait()
    greet()
"""


def test_a_flow_talks_to_the_server_that_ends_with_the_process(tmp_path):
    own = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=own | {"PREFECT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    url, run = done.stdout.split()
    assert f"Beginning flow run '{run}'" in done.stderr
    assert "View at" not in done.stderr  # it has no pages
    assert "temporary server" not in done.stderr  # Prefect had none to start
    port = int(url.removesuffix("/api/").rpartition(":")[2])
    assert port not in {one.laddr.port for one in psutil.net_connections("tcp4")}


def test_a_server_that_cannot_start_is_told_at_once(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file, where a folder must be")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    with pytest.raises(PedfracError, match="temporary server ended with exit code"):
        TemporaryServer().wait()
