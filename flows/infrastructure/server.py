"""A Prefect server for one command, where a person has none of their own.

It is what Prefect's own temporary server is: but to begin that, a command would first import all of
the server, for seconds in which neither it nor the server gets on.
"""

import atexit
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

from pedfrac.errors import PedfracError

HOST = "127.0.0.1"
LONGEST_START = 120  # seconds; a new database takes a slow machine a quarter of a minute
LONGEST_END = 5  # seconds


class TemporaryServer:
    """A server in a process of its own, without pages, that has begun to start."""

    def __init__(self) -> None:
        self._port = _free_port()
        self.url = f"http://{HOST}:{self._port}/api"
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn"),
                *("--factory", "prefect.server.api.server:create_app"),
                *("--host", HOST, "--port", str(self._port), "--log-level", "error"),
            ],
            env=os.environ | {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"},
        )
        # after Prefect's own last words to it, which were registered later
        atexit.register(self.stop)

    def wait(self) -> None:
        """Return when it answers; raise PedfracError where it ended, or takes too long."""
        deadline = time.monotonic() + LONGEST_START
        while not self._answers():
            if (code := self._process.poll()) is not None:
                raise PedfracError(
                    f"Prefect's temporary server ended with exit code {code} before it answered; "
                    "what it said stands above. It must be able to write to PREFECT_HOME"
                )
            if time.monotonic() > deadline:
                raise PedfracError(
                    f"Prefect's temporary server at {self.url} gave no answer in {LONGEST_START} s"
                )
            time.sleep(0.05)

    def _answers(self) -> bool:
        connection = HTTPConnection(HOST, self._port, timeout=LONGEST_START)
        with suppress(OSError, HTTPException), closing(connection):
            connection.request("GET", "/api/health")
            return connection.getresponse().status == HTTPStatus.OK
        return False

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(LONGEST_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def temporary_server() -> Iterator[TemporaryServer]:
    """Have a server start, which this process talks to inside; it ends with the process."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_UI_URL,
        temporary_settings,
    )

    server = TemporaryServer()
    settings = {
        PREFECT_API_URL: server.url,
        PREFECT_UI_URL: "",  # it has no pages to lead anybody to
        # nobody listens to heartbeats there, and to end them takes each run a second
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(settings):
        yield server


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind((HOST, 0))
        port: int = trial.getsockname()[1]
        return port
