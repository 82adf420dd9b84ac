"""What a command costs beyond its work: beside one process that calls the library.

Rounds in turns, each process new: ``pedfrac --help`` against importing typer; ``records`` of the
real table without images, and ``predict``, each against a script that does the same by the library.
Shown is the ratio of a round's seconds (wall clock and CPU), as median with the quantiles .1 and
.9, so that other work on the machine slows both sides alike.
Run: ``python benchmarks/startup.py --data DATA --bundle BUNDLE --images FOLDER``
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from turns import spread, take_turns

ALLOWED = 1.5
HELP_EXTRA = 0.3  # seconds
COMMAND = [sys.executable, "-m", "flows.cli"]
RECORDS = """
import sys, tempfile
from pedfrac.config.loading import load_config
from pedfrac.pipeline.data import count_listed, read_records, select_cohort
from pedfrac.pipeline.keys import store_of
with tempfile.TemporaryDirectory() as folder:
    config = load_config(None, [
        "data.images=false", f"data.root={sys.argv[1]}", f"artifacts={folder}"
    ])
    records = read_records(config)
    cohort = select_cohort(config, records)
    print(count_listed(config), store_of(config).get(cohort).read_json("cohort.json"))
"""
PREDICT = """
import sys
from pedfrac.config.serving import PredictionConfig
from pedfrac.pipeline.prediction import predict_images
print(predict_images(PredictionConfig(images=(sys.argv[1],), bundle=sys.argv[2])).rows)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Folder of the real dataset.csv")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="Images to score")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    data, images, bundle = (str(one.resolve()) for one in (given.data, given.images, given.bundle))
    pairs = {
        "--help": ([*COMMAND, "--help"], [sys.executable, "-c", "import typer"]),
        "records --no-images": (
            [*COMMAND, "records", "--no-images", "-d", data],
            [sys.executable, "-c", RECORDS, data],
        ),
        "predict": (
            [*COMMAND, "predict", images, "-b", bundle],
            [sys.executable, "-c", PREDICT, images, bundle],
        ),
    }
    for name, (command, library) in pairs.items():
        _compare(name, command, library, given.rounds)


def _compare(name: str, command: list[str], library: list[str], rounds: int) -> None:
    """Print how many times as long a command takes as the library does, and what is allowed."""
    spent: dict[str, list[float]] = {"command": [], "library": []}
    works = {
        "command": _work(command, spent["command"]),
        "library": _work(library, spent["library"]),
    }
    seconds = take_turns(works, rounds)
    extra = HELP_EXTRA if name == "--help" else 0.0
    for kind, each in {
        "wall": seconds,
        "CPU": {which: np.array(times) for which, times in spent.items()},
    }.items():
        ratio = each["command"] / each["library"]
        allowed = np.median((ALLOWED * each["library"] + extra) / each["library"])
        print(
            f"{name}, {kind}: command {spread(each['command'], 2)} s, library "
            f"{spread(each['library'], 2)} s, ratio {spread(ratio, 2)}, allowed {allowed:.2f}",
            flush=True,
        )


def _work(command: list[str], spent: list[float]) -> Callable[[], None]:
    """Return what runs a command in an empty folder, and adds the CPU seconds that it took."""
    root = str(Path(__file__).parents[1])

    def run() -> None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                command,
                cwd=folder,
                env=os.environ | {"PYTHONPATH": root},
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    return run


if __name__ == "__main__":
    main()
