"""Steps of a search: one training that is tried, and what a finished search leaves."""

import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pedfrac.compute.devices import resolve_devices
from pedfrac.config.loading import to_yaml
from pedfrac.config.retrain import RetrainConfig
from pedfrac.errors import PedfracError
from pedfrac.pipeline.keys import Prepared, store_of
from pedfrac.pipeline.training import Training, age_training, fracture_training
from pedfrac.storage.files import write_json
from pedfrac.storage.inputs import Inputs
from pedfrac.storage.manifest import Artifact
from pedfrac.training.hyperparameter_search import Floor, Outcome, Search, falls_behind
from pedfrac.training.trainer import Epoch, OnEpoch

BEST, TRIALS = "best.yaml", "trials.json"


def searched_training(config: RetrainConfig, prepared: Prepared, model: str) -> Training:
    """Return the training of the model that a search tries: generalist, age, or an age group.

    Raises PedfracError for any other name.
    """
    if model == "age":
        return age_training(config, prepared)
    if model == "generalist":
        return fracture_training(config, prepared)
    names = config.cohort.ages.names
    if model not in names:
        allowed = ", ".join(("generalist", "age", *names))
        raise PedfracError(f"search: model {model!r}; allowed are {allowed}")
    # from the backbone's weights: which generalist it would start from is not settled yet
    specialist = config.fracture.specialist.model_copy(update={"start": "fresh"})
    fracture = config.fracture.model_copy(update={"specialist": specialist})
    fresh = config.model_copy(update={"fracture": fracture})
    return fracture_training(fresh, prepared, names.index(model))


class _FellBehind(Exception):
    """The training is worse than others were by then."""


@dataclass(frozen=True)
class Attempt:
    """A trial that has not started: a training that may be stopped early."""

    config: RetrainConfig
    prepared: Prepared
    model: str
    search: str
    number: int
    floor: Floor = ()
    kind: ClassVar[str] = "trial"

    @property
    def name(self) -> str:
        """Which trial it is, in words."""
        return f"trial {self.number} of {self.search}"

    @cached_property
    def training(self) -> Training:
        """The training that is tried."""
        return searched_training(self.config, self.prepared, self.model)

    @property
    def inputs(self) -> Inputs:
        """What the outcome is made from: the trial, and all that its training is made from."""
        return Inputs.of(self.kind, config=self._settings)

    @property
    def key(self) -> str:
        """The key of the outcome, known before it exists."""
        return self.inputs.key

    @property
    def done(self) -> bool:
        """Whether the outcome is in the store."""
        return store_of(self.config).exists(self.key)

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        return Outcome.model_validate(store_of(self.config).get(self.key).read_json("trial.json"))

    def run(self, on_epoch: OnEpoch = lambda epoch: None) -> str:
        """Train to the end, or until it falls behind; return the key of the outcome."""
        store = store_of(self.config)

        def make(folder: Path) -> None:
            write_json(folder / "trial.json", self._try(folder, on_epoch).model_dump())

        return store.produce(self.kind, make, config=self._settings, resumable=True).key

    def _try(self, folder: Path, on_epoch: OnEpoch) -> Outcome:
        monitor, clock = self.training.training.monitor, _Clock(folder / "hours.json")
        history: list[Epoch] = []

        def watch(epoch: Epoch) -> None:
            clock.save()
            on_epoch(epoch)
            history.append(epoch)
            if falls_behind(history, monitor, self.floor):
                raise _FellBehind

        try:
            trained = store_of(self.config).get(self.training.run(watch))
            # one that was in the store already told of no epoch
            history = trained.read_json("history.json")
        except _FellBehind:
            stopped = True
        else:
            stopped = False
        metrics = [epoch["validation"][monitor] for epoch in history]
        best = min(metrics) if monitor == "loss" else max(metrics)
        runtime = self.config.runtime
        return Outcome(
            state="stopped" if stopped else "complete",
            metric=best,
            metrics=tuple(metrics),
            best_epoch=1 + metrics.index(best),
            hours=clock.hours * len(resolve_devices(runtime.device, runtime.devices)),
        )

    @property
    def _settings(self) -> dict[str, Any]:
        # not the floor: a trial that is taken up again is the same, whatever ended in between
        training = self.training.inputs.model_dump(
            mode="json", exclude={"parents": {"__all__": {"key"}}}
        )
        return {"search": self.search, "number": self.number, "training": training}


class _Clock:
    """Hours of a training, including earlier attempts that were killed."""

    def __init__(self, path: Path):
        self._path, self._began = path, time.monotonic()
        self._before = json.loads(path.read_text()) if path.exists() else 0.0

    @property
    def hours(self) -> float:
        return float(self._before + (time.monotonic() - self._began) / 3600)

    def save(self) -> None:
        write_json(self._path, self.hours)


def keep_search(config: RetrainConfig, search: Search) -> Artifact:
    """Keep the best configuration as YAML, and a table of all trials."""
    _, _, best = search.best()

    def make(folder: Path) -> None:
        (folder / BEST).write_text(to_yaml(best))
        write_json(folder / TRIALS, search.rows())

    settings = {
        "search": search.search.model_dump(mode="json"),
        "trials": search.rows(),
        "best": best.model_dump(mode="json"),
    }
    return store_of(config).produce("search", make, config=settings)
