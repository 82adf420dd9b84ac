"""The units of deployments/systemd, run as systemd would; a backup of them, restored elsewhere.

What a machine has to itself is replaced and nothing else: its folders, its ports, its secrets.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
from databases import PACKAGE, PROGRAMS, postgres
from platforms import LONGEST, wait_for
from servers import free_ports

from pedfrac.config.phantoms import PhantomConfig
from pedfrac.phantoms.dataset import write_phantoms

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "deployments/systemd"
POSTGRES = Path(sysconfig.get_path("platlib")) / PACKAGE / PROGRAMS
PORTS = {"AWS_ENDPOINT_URL": 8333, "PREFECT_API_URL": 4200, "MLFLOW_TRACKING_URI": 5000}
GIVEN = {"GPU_WORKER_OPTIONS": "--slots=1"}  # what pedfrac.env says for a machine without a GPU


def settings_of(text: str) -> dict[str, str]:
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


@dataclass
class Machine:
    """One machine with nothing but PostgreSQL and what is installed."""

    folder: Path
    database: int
    data: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        new = dict(zip(PORTS.values(), free_ports(len(PORTS)), strict=True))
        self.ports = {str(port): str(instead) for port, instead in new.items()}
        settings = settings_of(self.here((UNITS / "pedfrac.env").read_text()))
        empty = {name: f"user:{self.folder.name}" for name, value in settings.items() if not value}
        self.settings = settings | empty | GIVEN | {"PEDFRAC_DATA": str(self.data)}
        self.environment = self.settings | {
            "PATH": f"{Path(sys.executable).parent}:{POSTGRES}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
        }

    def here(self, text: str) -> str:
        """Return a text of the units with this machine's folders and ports."""
        text = re.sub("|".join(self.ports), lambda found: self.ports[found[0]], text)
        return (
            text.replace("5432", str(self.database))
            .replace("/opt/pedfrac/.venv/bin", str(Path(sys.executable).parent))
            .replace("/var/lib/pedfrac", str(self.folder))
        )

    def lines(self, unit: str, name: str) -> list[list[str]]:
        """Return the commands of a unit, with variables in their place as systemd does it."""
        text = self.here((UNITS / f"pedfrac-{unit}.service").read_text())
        found = re.findall(rf"^{name}=(.*)$", text, re.M)
        return [[word for part in line.split() for word in self._words(part)] for line in found]

    def _words(self, word: str) -> list[str]:
        if re.fullmatch(r"\$\w+", word):
            return shlex.split(self.settings[word[1:]])
        return [re.sub(r"\$\{(\w+)\}", lambda name: self.settings[name[1]], word)]

    def start(self, unit: str) -> None:
        """Start a unit; a oneshot to its end."""
        for before in self.lines(unit, "ExecStartPre"):
            self.run(*before)
        commands = self.lines(unit, "ExecStart")
        if "Type=oneshot" in (UNITS / f"pedfrac-{unit}.service").read_text():
            for command in commands:
                self.run(*command)
            return
        (command,) = commands
        with (self.folder / f"{unit}.log").open("ab") as log:
            self.processes[unit] = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )

    def run(self, *command: str | Path, into: Path | None = None) -> str:
        """Run a command to its end and return what it printed."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            check=False,
            timeout=LONGEST,
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")[-3000:]
        if into:
            into.write_bytes(done.stdout)
        return done.stdout.decode(errors="replace")

    def answers(self, unit: str, *check: str) -> None:
        def healthy() -> bool:
            log = self.folder / f"{unit}.log"
            assert self.processes[unit].poll() is None, log.read_text()[-2000:]
            command = [sys.executable, ROOT / "docker/health.py", *check]
            done = subprocess.run(command, env=self.environment, capture_output=True, check=False)
            return done.returncode == 0

        wait_for(healthy, unit)

    def start_all(self) -> None:
        """Start what docs/bare-metal.md starts, in its order."""
        self.start("databases")
        self.start("prefect")
        self.start("mlflow")
        self.answers("prefect", self.settings["PREFECT_API_URL"] + "/health")
        self.answers("mlflow", self.settings["MLFLOW_TRACKING_URI"] + "/health")
        self.start("deploy")
        for pool in ("cpu", "gpu"):
            self.start(f"worker-{pool}")
            self.answers(f"worker-{pool}", "--pool", pool)

    def retrain(self, deployment: str, ends_as: str) -> None:
        """Begin a deployment and wait until it ends, in the state of this name."""
        script = str(ROOT / "docker/check_retraining.py")
        self.run(sys.executable, script, deployment, ends_as)

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def machine(folder: Path, data: Path) -> Iterator[Machine]:
    """A machine with two empty databases, made as docs/bare-metal.md says, and its S3 store up."""
    folder.mkdir()
    with postgres() as url:
        here = Machine(folder, urlsplit(url).port or 0, data)
        admin = psycopg2.connect(host="127.0.0.1", port=here.database, user="postgres")
        admin.autocommit = True
        with admin.cursor() as cursor:
            cursor.execute("CREATE ROLE pedfrac LOGIN")
            for name in ("prefect", "mlflow"):
                cursor.execute(f"CREATE DATABASE {name} OWNER pedfrac")
        admin.close()
        try:
            here.start("s3")
            here.answers("s3", here.settings["AWS_ENDPOINT_URL"] + "/healthz")
            yield here
        finally:
            here.stop()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bare") / "data"
    write_phantoms(folder, PhantomConfig(images=300, scale=0.2, workers=2))
    return folder


def test_a_retraining_outlives_its_machine(tmp_path, data):
    """Both machines run the shipped units; the second has nothing but the backup of the first."""
    saved = tmp_path / "backup"
    saved.mkdir()
    with machine(tmp_path / "first", data) as first:
        first.start_all()
        first.retrain("retrain", "Completed")
        for name in ("prefect", "mlflow"):
            first.run("pg_dump", "--format=custom", name, into=saved / f"{name}.dump")
        first.run("python", "deployments/bucket.py", "save", "pedfrac", saved / "bucket")
    with machine(tmp_path / "second", data) as second:
        for name in ("prefect", "mlflow"):
            restore = ("pg_restore", "--exit-on-error", "--no-owner", f"--dbname={name}")
            second.run(*restore, saved / f"{name}.dump")
        second.run("python", "deployments/bucket.py", "load", "pedfrac", saved / "bucket")
        second.start_all()
        second.retrain("retrain-weekly", "Nothing to do")


def test_the_page_names_every_unit():
    page = (ROOT / "docs/bare-metal.md").read_text()
    for unit in UNITS.glob("*.service"):
        assert unit.stem in page
