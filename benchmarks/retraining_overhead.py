"""What a whole retraining costs beyond its compute: orchestration, start-up, tracking, the end.

A round is the command ``pedfrac retrain`` as a person types it, with no server and no artifacts,
and then the same steps one after another without Prefect and MLflow (bare_retraining), whose own
time, without imports, is the compute. There each step has all cores, whatever ``runtime.parallel``
says: with ``--set runtime.parallel=2`` the command trains side by side, and the ratio is no longer
that of orchestration alone. The images are phantoms.
Run: ``python benchmarks/retraining_overhead.py --config demo.yaml``
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BARE = Path(__file__).with_name("bare_retraining.py")
COMPUTE = ("pack", "training", "evaluation", "explanation", "robustness")  # kinds begin so


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("demo.yaml"))
    parser.add_argument("--data", type=Path, help="Phantoms; made where they are not there")
    parser.add_argument("--images", type=int, default=1400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="As in pedfrac")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as folder:
        data = given.data or Path(folder) / "phantoms"
        if not (data / "dataset.csv").exists():
            size = ["--images", str(given.images), "--scale", "0.35"]
            _run(["-m", "flows.cli", "phantom", str(data), *size], Path(folder))
        rounds = [
            (_retrain(given, data, Path(folder) / f"whole-{k}"), _bare(given, data, folder, k))
            for k in range(given.rounds)
        ]
    _print(rounds)


def _retrain(given: argparse.Namespace, data: Path, folder: Path) -> float:
    """Return the wall time of the command in seconds."""
    folder.mkdir()
    began = time.monotonic()
    _run(["-m", "flows.cli", "retrain", *_settings(given, data, folder)], folder)
    return time.monotonic() - began


def _bare(given: argparse.Namespace, data: Path, folder: str, number: int) -> dict[str, float]:
    """Return the seconds of each kind of step in a process that does nothing else."""
    home = Path(folder) / f"bare-{number}"
    home.mkdir()
    done = _run([str(BARE), "--json", *_settings(given, data, home)], home)
    seconds: dict[str, float] = json.loads(done)
    return seconds


def _settings(given: argparse.Namespace, data: Path, folder: Path) -> list[str]:
    places = {"data.root": data, "artifacts": folder / "artifacts", "results": folder / "results"}
    return [
        *("--config", str(given.config.resolve())),
        *(f"--set={name}={path.resolve()}" for name, path in places.items()),
        *(f"--set={one}" for one in given.set),
    ]


def _run(arguments: list[str], home: Path) -> str:
    """Run Python and return what it prints; a Prefect of its own lies in ``home``."""
    own = {"PREFECT_HOME": str(home / "prefect"), "DO_NOT_TRACK": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | own,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def _print(rounds: list[tuple[float, dict[str, float]]]) -> None:
    walls = np.array([wall for wall, _ in rounds])
    compute = np.array(
        [
            [sum(s for kind, s in bare.items() if kind.startswith(part)) for part in COMPUTE]
            for _, bare in rounds
        ]
    )
    each = "".join(f" {part} {np.median(compute[:, k]):.0f} s," for k, part in enumerate(COMPUTE))
    ratios = ", ".join(f"{ratio:.3f}" for ratio in walls / compute.sum(axis=1))
    print(f"wall time {np.median(walls):.0f} s; compute:{each[:-1]}")
    print(f"wall time / compute: {np.median(walls / compute.sum(axis=1)):.3f} ({ratios})\n")
    print("| step | seconds by itself |\n|---|---|")
    for kind in rounds[0][1]:
        print(f"| {kind} | {np.median([bare[kind] for _, bare in rounds]):.1f} |")


if __name__ == "__main__":
    main()
