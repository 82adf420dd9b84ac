"""What fanning out costs: five equal trainings on two workers against their work / 2.

Starts a real Prefect server on PostgreSQL, MLflow, an S3 server and workers on loopback, trains
the same network five times as children on the pool (five seeds), and prints where the time went.
A child's training is timed in the child itself, from its first epoch to its last, so that other
work on the machine slows both sides of a ratio. Run: ``python benchmarks/fan_out.py``
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from platforms import Platform, config, platform, seconds, wait_for  # noqa: E402
from servers import seaweed  # noqa: E402

from pedfrac.config.phantoms import PhantomConfig  # noqa: E402
from pedfrac.phantoms.dataset import write_phantoms  # noqa: E402

CHILDREN, WORKERS = 5, 2
SPANS = (
    "a free worker takes it",
    "process, imports, first word to the server",
    "data fetched, network built, first epoch, MLflow opened",
    "training",
    "model published, files to MLflow, end",
)


@dataclass(frozen=True)
class Child:
    """When a child was asked for, and when each of the spans ended, in seconds since 1970."""

    asked: float
    taken: float
    begun: float
    first_epoch: float
    last_epoch: float
    ended: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=300)
    epochs = parser.parse_args().epochs
    with tempfile.TemporaryDirectory() as folder, seaweed(Path(folder) / "s3") as s3:
        s3.client.create_bucket(Bucket="pools")
        write_phantoms(Path(folder) / "data", PhantomConfig(images=300, scale=0.2))
        with platform(Path(folder), s3.environment, "s3://pools/bench") as stage:
            stage.start_workers("cpu", 1)
            stage.start_workers("gpu", WORKERS)
            prepared = stage.finish(stage.begin("pack/pack", config(stage, "bench")))
            assert prepared["type"] == "COMPLETED", prepared["message"]
            children = _children(stage, epochs)
    _print(children, epochs)


def _print(children: list[Child], epochs: int) -> None:
    # the first epoch's end is the first moment that is known
    work = [(one.last_epoch - one.first_epoch) * epochs / (epochs - 1) for one in children]
    busy = [one.ended - one.taken for one in children]
    wall = max(one.ended for one in children) - min(one.asked for one in children)
    rounds = ceil(CHILDREN / WORKERS) / (CHILDREN / WORKERS)
    print(f"{os.cpu_count()} cores, {epochs} epochs, load {os.getloadavg()[0]:.1f}\n")
    print("| metric | value |\n|---|---|")
    print(f"| a child's training | {mean(work):.1f} s |")
    print(f"| wall time / (work / {WORKERS}) | {wall / (sum(work) / WORKERS):.2f} |")
    print(f"| the least that {CHILDREN} children on {WORKERS} workers allow | {rounds:.2f} |")
    print(f"| what a child costs beyond its training | {mean(busy) - mean(work):.1f} s |\n")
    print("| of a child's time | mean | each |\n|---|---|---|")
    for name, (before, after) in zip(SPANS, pairwise(vars(children[0])), strict=True):
        each = [getattr(one, after) - getattr(one, before) for one in children]
        print(f"| {name} | {mean(each):.1f} s | {', '.join(f'{value:.1f}' for value in each)} |")


def _settings(stage: Platform, epochs: int, seed: int) -> dict:
    settings = config(stage, "bench", epochs=epochs)
    settings["config"]["fracture"]["training"] |= {"seed": seed}
    return settings


def _children(stage: Platform, epochs: int) -> list[Child]:
    begun = [
        stage.begin("train-fracture/train-fracture", _settings(stage, epochs, seed))
        for seed in range(CHILDREN)
    ]
    for run in begun:
        state = stage.finish(run, seconds=3600)
        assert state["type"] == "COMPLETED", state["message"]
    children = [_child(stage, run, epochs) for run in begun]
    return sorted(children, key=lambda child: child.taken)


def _child(stage: Platform, run: str, epochs: int) -> Child:
    states = stage.ask("GET", f"/flow_run_states/?flow_run_id={run}")
    latest_first = sorted(states, key=lambda state: state["timestamp"], reverse=True)
    entered = {state["type"]: seconds(state["timestamp"]) for state in latest_first}

    def epoch(number: int, order: str) -> float:
        wanted = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": f"TIMESTAMP_{order}"}

        def told() -> list:
            lines = stage.ask("POST", "/logs/filter", wanted)  # the first 200 in this order
            return [one for one in lines if f"epoch {number}/{epochs} " in one["message"]]

        # a run's last lines may reach the server after its state
        (line,) = wait_for(told, f"the line of epoch {number}")
        return seconds(line["timestamp"])

    return Child(
        asked=entered["SCHEDULED"],
        taken=entered["PENDING"],
        begun=entered["RUNNING"],
        first_epoch=epoch(1, "ASC"),
        last_epoch=epoch(epochs, "DESC"),
        ended=entered["COMPLETED"],
    )


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"\n({time.perf_counter() - start:.0f} s in all)")
