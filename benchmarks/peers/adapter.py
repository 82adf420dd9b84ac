"""What every adapter shares: the job that it is given, and how it tells the driver of its epochs.

An adapter runs inside the environment of its peer, so nothing here needs more than Python and, on
a GPU, the peer's own torch. Not here: how a peer trains (``of_*.py``), nor who asks (compare.py).
"""

import csv
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

CLASSES = ("fractured", "normal")  # as folders sort, so the first is class 0 everywhere


@dataclass(frozen=True)
class Job:
    """One training: on which images, of which network, how long, and by which own options.

    ``images`` holds train, val and test, each with a folder per class; ``layout`` the same images
    as published, with ``split`` telling their parts. ``began`` is when the process was started.
    """

    images: str
    layout: str
    split: str
    work: str
    backbone: str
    size: int
    batch: int
    epochs: int
    seed: int
    device: str
    began: float
    weights: str | None = None
    script: str | None = None
    turns: bool = False
    score: bool = False
    options: dict[str, str] = field(default_factory=dict)

    def option(self, name: str, default: str) -> str:
        """Return one of the entry's own options."""
        return self.options.get(name, default)

    def has(self, name: str) -> bool:
        """Return whether an option is on."""
        return self.options.get(name, "off") == "on"

    def moved(self, work: Path) -> "Job":
        """Return the job with another folder to work in."""
        return replace(self, work=str(work))

    def on(self, images: Any) -> "Job":
        """Return the job on other images: a layout, a split file and image folders."""
        named = {name: str(getattr(images, name)) for name in ("layout", "split", "images")}
        return replace(self, **named)

    def trained(self, fold: int, epochs: int) -> "Job":
        """Return the job of a fold, which is the seed too, that scores the held-out images."""
        work = str(Path(self.work) / f"fold-{fold}")
        return replace(self, seed=fold, epochs=epochs, work=work, score=True)

    @property
    def workers(self) -> int:
        """Loader processes."""
        return int(self.options.get("workers", "2"))

    def part(self, name: str) -> Path:
        """Return the folder of train, val or test."""
        return Path(self.images) / name


class Driver:
    """Where an adapter reports to: one JSON object a line, through a pipe of its own.

    Not through standard output, where frameworks print what they like.
    """

    def __init__(self) -> None:
        job, pipe = sys.argv[1:]
        self.job = Job(**json.loads(job))
        self._told = os.fdopen(int(pipe), "w", buffering=1)
        sys.argv = sys.argv[:1]
        self._start = 0.0

    def begin(self, *_: Any) -> None:
        """Note that the training part of an epoch begins, its loading included."""
        self._start = self._now()

    def end(self, *_: Any) -> None:
        """Tell how long the training part took, and where entries take turns wait for the next."""
        self.tell(epoch=self._now() - self._start, at=time.time() - self.job.began)
        if self.job.turns:
            sys.stdin.readline()

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that trains one epoch, timed."""

        def run(*args: Any, **named: Any) -> Any:
            self.begin()
            result = function(*args, **named)
            self.end()
            return result

        return run

    def tell(self, **facts: Any) -> None:
        """Tell the driver something."""
        print(json.dumps(facts), file=self._told)

    def finish(self, scores: Callable[[], Iterable[tuple[str, float]]]) -> None:
        """Tell that the training is over, and only then score the test images if asked to.

        ``scores`` gives each image's name and its probability of a fracture.
        """
        self.tell(trained=time.time() - self.job.began, processor=_processor_seconds())
        if not self.job.score:
            return
        with (Path(self.job.work) / "scores.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["filestem", "score"])
            writer.writerows((Path(name).stem, float(score)) for name, score in scores())

    def _now(self) -> float:
        if self.job.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()


def _processor_seconds() -> float:
    """Return the seconds of all cores that this process and its ended loaders have taken."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    found = [resource.getrusage(kind) for kind in kinds]
    return sum(one.ru_utime + one.ru_stime for one in found)
