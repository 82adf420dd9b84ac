"""A Prefect server, MLflow and workers, each a process of its own on loopback, ended by its pid."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from databases import postgres
from servers import free_ports

ROOT = Path(__file__).parents[2]
GROUPS = ["0-5y", "5-8y", "8-11y", "11-14y", "14-19y"]
LONGEST = 900  # seconds for anything, on a machine that others keep busy


@dataclass
class Platform:
    """What runs, and how to reach it; ``environment`` is that of every process."""

    folder: Path
    prefect: int
    mlflow: int
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)

    # ---- processes ----------------------------------------------------------------------------

    def start(self, name: str, *command: object) -> subprocess.Popen:
        """Start a process whose output goes to ``NAME.log``."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *map(str, command)],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def stop(self, name: str, how: int = signal.SIGTERM) -> None:
        """Stop a process of this platform and wait until it is gone."""
        process = self.processes.pop(name)
        process.send_signal(how)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def lose(self, name: str) -> None:
        """Kill a process and all below it at once, as if its node lost power."""
        process = psutil.Process(self.processes[name].pid)
        tree = [process, *process.children(recursive=True)]
        for one in tree:  # from the top, so that nobody is left to tell of the others
            with suppress(psutil.NoSuchProcess):
                one.suspend()
        tree += [one for one in process.children(recursive=True) if one not in tree]
        for one in tree:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self.processes.pop(name).wait()

    def runs_on(self, name: str) -> bool:
        """Return True while a process has not ended; raise AssertionError with its last words."""
        log = self.folder / f"{name}.log"
        assert self.processes[name].poll() is None, f"{name}: {log.read_text()[-2000:]}"
        return True

    def start_server(self) -> None:
        """Start the Prefect server and wait until it answers."""
        self.start("server", "prefect", "server", "start", "--port", self.prefect)
        wait_for(
            lambda: self.runs_on("server") and self.ask("GET", "/health"), "the Prefect server"
        )

    def start_mlflow(self) -> None:
        """Start the MLflow server and wait until it answers."""
        store = f"sqlite:///{self.folder}/mlflow.db"
        kept = ["--artifacts-destination", self.folder / "mlflow-files"]
        self.start(
            "mlflow",
            *("mlflow", "server", "--port", self.mlflow, "--backend-store-uri", store),
            *kept,
        )
        url = f"http://127.0.0.1:{self.mlflow}/health"
        wait_for(
            lambda: self.runs_on("mlflow") and urllib.request.urlopen(url, timeout=5), "MLflow"
        )

    def start_workers(self, pool: str, slots: int, name: str | None = None) -> None:
        """Start the workers of a pool as a user does."""
        self.start(name or pool, "flows.cli", "workers", "--pool", pool, "--slots", slots)

    def command(self, *command: object, cwd: Path = ROOT) -> str:
        """Run a command to its end and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", *map(str, command)],
            cwd=cwd,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    def deploy(self, *which: str) -> None:
        """Deploy all flows, or those that are named, as an operator does."""
        self.command("flows.cli", "deploy", *which)

    # ---- the server's interface, as its UI uses it --------------------------------------------

    def ask(self, method: str, path: str, content: Any = None) -> Any:
        """Return the answer of the Prefect API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.prefect}/api{path}",
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={"Content-Type": "application/json"},
        )
        for _ in range(3):  # SQLite under many writers is locked at times
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    body = answer.read()
                return json.loads(body) if body else None
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise
                last = error
                time.sleep(2)
        raise last

    def begin(self, deployment: str, parameters: dict[str, Any]) -> str:
        """Begin a run of a deployment as a click does; return its id."""
        found = self.ask("GET", f"/deployments/name/{deployment}")
        content = {"parameters": found["parameters"] | parameters, "state": {"type": "SCHEDULED"}}
        run: dict[str, str] = self.ask(
            "POST", f"/deployments/{found['id']}/create_flow_run", content
        )
        return run["id"]

    def state(self, run: str) -> dict[str, Any]:
        """Return the state of a run."""
        found: dict[str, Any] = self.ask("GET", f"/flow_runs/{run}")["state"]
        return found

    def cancel(self, run: str) -> None:
        """Cancel a run as a click does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self.ask("POST", f"/flow_runs/{run}/set_state", {"state": state})

    def finish(self, run: str, seconds: float = LONGEST) -> dict[str, Any]:
        """Wait until a run is over and return its last state."""
        final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        wait_for(lambda: self.state(run)["type"] in final, f"run {run}", seconds)
        return self.state(run)

    def runs(self, flow: str | None = None) -> list[dict[str, Any]]:
        """Return all runs, newest first, of a flow if it is named."""
        wanted: dict[str, Any] = {"sort": "EXPECTED_START_TIME_DESC"}
        if flow:
            wanted["flows"] = {"name": {"any_": [flow]}}
        found: list[dict[str, Any]] = self.ask("POST", "/flow_runs/filter", wanted)
        return found

    def engines(self) -> dict[str, psutil.Process]:
        """Return the processes that execute runs, by the id of their run."""
        found = {}
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                mine = environment.get("PREFECT_API_URL") == self.environment["PREFECT_API_URL"]
                mine = mine and "prefect.engine" in process.cmdline()
                if mine and (run := environment.get("PREFECT__FLOW_RUN_ID")):
                    found[run] = process
            except psutil.Error:
                continue
        return found


@contextmanager
def platform(folder: Path, s3: dict[str, str], artifacts: str) -> Iterator[Platform]:
    """Run Prefect on PostgreSQL, and MLflow, with deployments, pools and automations."""
    prefect, mlflow = free_ports(2)
    running = Platform(folder, prefect, mlflow, _environment(folder, prefect, mlflow))
    running.environment |= s3 | {"PEDFRAC_ARTIFACTS": artifacts}
    with postgres() as database, _ended(running):
        running.environment["PREFECT_API_DATABASE_CONNECTION_URL"] = database
        running.start_server()
        running.start_mlflow()
        running.command("flows.cli", "pools")
        running.deploy()
        yield running


@contextmanager
def _ended(running: Platform) -> Iterator[None]:
    """End what runs in the end."""
    try:
        yield
    finally:
        for name in reversed(list(running.processes)):
            running.stop(name)
        for process in running.engines().values():
            process.kill()


def wait_for(condition: Callable[[], Any], what: str, seconds: float = LONGEST) -> Any:
    """Return what a condition returns once it is true; errors of connections count as not yet."""
    until = time.monotonic() + seconds
    while True:
        try:
            if found := condition():
                return found
        except OSError:
            pass
        assert time.monotonic() < until, f"{what} took longer than {seconds:g} s"
        time.sleep(0.5)


def _environment(folder: Path, prefect: int, mlflow: int) -> dict[str, str]:
    leases = "prefect.server.concurrency.lease_storage.filesystem"
    return os.environ | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PEDFRAC_SEARCH_STORAGE": f"sqlite:///{folder}/search.db",
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_V2_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": leases,
        # what waits for a free device is not late
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "43200",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "pedfrac,flows,tasks",
        "PREFECT_CLIENT_MAX_RETRIES": "6",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",  # an absent worker is missed after three
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PEDFRAC_CACHE": str(folder / "cache"),
        "PEDFRAC_DATA": str(folder / "data"),
        "DO_NOT_TRACK": "1",
    }


def config(stage: Platform, artifacts: str, epochs: int = 30, **changes) -> dict:
    """Return the parameters of a retraining with tiny networks."""
    training = {"epochs": epochs, "patience": epochs, "batch_size": 16}
    return {
        "config": {
            "data": {"root": str(stage.folder / "data")},
            "artifacts": f"s3://pools/{artifacts}",
            "tracking": {"experiment": artifacts},
            "results": "",
            "cohort": {"age_bounds": [0, 5, 8, 11, 14, 19]},
            "split": {"test_per_year": 1, "validation_fraction": 0.3, "seed": 2},
            "fracture": {
                "model": {
                    "backbone": "convnextv2_atto",
                    "options": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
                    "weights": "none",
                    "size": 48,
                },
                "training": training,
            },
            "age": {
                "model": {
                    "options": {
                        "embed_dim": 8,
                        "depths": [1, 1],
                        "num_heads": [1, 2],
                        "window_size": 3,
                    },
                    "weights": "none",
                    "size": 48,
                },
                "training": training,
            },
            "evaluation": {"resamples": 50},
            "explanation": {"images_per_group": 3},
            "runtime": {"dispatch": "deployments"},
            **changes,
        }
    }


def children(stage: Platform, begun: float) -> list[dict]:
    """Return the runs of trainings that were created since a time."""
    runs = stage.runs("train-fracture") + stage.runs("train-age")
    return [run for run in runs if seconds(run["created"]) >= begun]


def seconds(stamp: str) -> float:
    """Return a time of the API as seconds since 1970."""
    return datetime.fromisoformat(stamp).timestamp()


def training_run(stage: Platform, begun: float, name: str, but: str = "") -> dict | None:
    """Return a running training that has shown its first epoch, if there is one."""
    for run in children(stage, begun):
        if run["name"].startswith(name) and run["id"] != but and run["state_type"] == "RUNNING":
            logs = {"logs": {"flow_run_id": {"any_": [run["id"]]}}}
            lines = stage.ask("POST", "/logs/filter", logs)
            if any(re.search(r"epoch \d+/", line["message"]) for line in lines):
                return run
    return None
