"""Entries of the comparison: a system with its options, and a training of it as a process.

Not here: what a system does in its process (``of_*.py``), nor what is measured (compare.py).
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from adapter import Job

from pedfrac.errors import PedfracError

HERE = Path(__file__).parent
OURS = "pedfrac"

# What each peer's environment holds beside the torch that this one has. train.py of timm is not in
# its package: it is a file of the repository huggingface/pytorch-image-models.
PACKAGES = {
    "timm": ("timm==1.0.31",),
    "fastai": ("fastai==2.8.12", "timm==1.0.31"),
    "ultralytics": ("ultralytics==8.4.190", "timm==1.0.31"),
    "autotimm": ("autotimm==0.7.37", "timm==1.0.31"),
}

# No peer is to ask the network for news, weights or fonts in the middle of a measurement.
QUIET = {"HF_HUB_OFFLINE": "1", "YOLO_OFFLINE": "true", "NO_ALBUMENTATIONS_UPDATE": "1"}


@dataclass(frozen=True)
class Entry:
    """A system and its own options, written ``name`` or ``name:option=value,option=value``."""

    name: str
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the entry that a text names; raise PedfracError for an unknown system."""
        name, _, options = text.partition(":")
        if name not in (OURS, *PACKAGES):
            allowed = ", ".join((OURS, *PACKAGES))
            raise PedfracError(f"entry {text!r}: allowed are {allowed}, with options after a colon")
        pairs = (pair.partition("=") for pair in options.split(",") if pair)
        return cls(name, {key: value for key, _, value in pairs})

    def __str__(self) -> str:
        return ", ".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])

    @property
    def folder(self) -> str:
        """A name for the entry's files."""
        return str(self).replace(", ", "-").replace("=", "-")

    def python(self, environments: Path) -> str:
        """Return the interpreter of the entry's environment."""
        if self.name == OURS:
            return sys.executable
        return str((environments / self.name / "bin" / "python").absolute())


class Training:
    """A training of an entry in a process of its own, that waits after each epoch for its turn.

    Between turns the process and its loaders are stopped, so that none works ahead on another's
    time. Leaving the context ends them.
    """

    def __init__(self, entry: Entry, job: Job, environments: Path):
        self.entry, self.pack_seconds = entry, 0.0
        work = Path(job.work)
        work.mkdir(parents=True, exist_ok=True)
        job = replace(job, options=entry.options, began=time.time())
        self._log = (work / "log.txt").open("w")
        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            [
                entry.python(environments),
                str(HERE / f"of_{entry.name}.py"),
                json.dumps(asdict(job)),
                str(writing),
            ],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[writing],
            text=True,
            cwd=work,
            env=os.environ | QUIET | {"YOLO_CONFIG_DIR": str(work)},
            start_new_session=True,  # so that its loaders are stopped and ended with it
        )
        os.close(writing)
        self._told = os.fdopen(reading)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._told.close()
        self._log.close()

    def turn(self, *, first: bool) -> float:
        """Let one epoch be trained and return its seconds."""
        if not first:
            self._signal(signal.SIGCONT)
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        for told in self.messages():
            if "epoch" in told:
                self._signal(signal.SIGSTOP)
                return told["epoch"]
        raise PedfracError(f"{self.entry}: ended before its epoch did; see {self._log.name}")

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield what the process tells, to its end."""
        for line in self._told:
            told = json.loads(line)
            self.pack_seconds = told.get("pack", self.pack_seconds)
            yield told

    def finish(self) -> list[dict[str, Any]]:
        """Return all that it tells to its end; raise PedfracError where it fails."""
        told = list(self.messages())
        if self._process.wait() != 0:
            raise PedfracError(f"{self.entry}: failed; see {self._log.name}")
        return told

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)


def install(name: str, environments: Path, torch: str) -> None:
    """Make the environment of a peer with ``uv``; what is there already is left."""
    folder = environments / name
    if not (folder / "bin" / "python").exists():
        subprocess.run(["uv", "venv", "--python", sys.executable, str(folder)], check=True)
    python = str(folder / "bin" / "python")
    wanted = [f"torch=={torch}", *PACKAGES[name]]
    subprocess.run(["uv", "pip", "install", "--python", python, *wanted], check=True)
