"""The search for better training settings: what is tried next, what is stopped, what was best.

Optuna proposes and remembers; only validation metrics are looked at. Not here: how a configuration
is trained (training), and where (flows).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import TrialState
from pydantic import BaseModel, ConfigDict

from pedfrac.config.loading import changed_config
from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.search import Range, SearchConfig
from pedfrac.errors import PedfracError
from pedfrac.storage.uri import is_remote
from pedfrac.training.trainer import Epoch

STORAGE = "PEDFRAC_SEARCH_STORAGE"  # not configuration, since it may hold a password
optuna.logging.set_verbosity(optuna.logging.WARNING)
Floor = Sequence[float | None]
"""The least that a training must have reached after each epoch; more is better."""


class Outcome(BaseModel):
    """How a trial ended: its validation metric after each epoch, and at its best."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    state: Literal["complete", "stopped"]
    metric: float
    metrics: tuple[float, ...]
    best_epoch: int
    hours: float


@dataclass(frozen=True)
class Trial:
    """A configuration to try; below the ``floor`` after an epoch it ends early."""

    number: int
    values: Mapping[str, Any]
    config: RetrainConfig
    floor: Floor


class Search:
    """An Optuna study that another process can continue.

    ``monitor`` is the validation metric; a loss is minimised, others are maximised.
    """

    def __init__(self, search: SearchConfig, base: RetrainConfig, monitor: str, storage: str):
        self.search, self.base, self._sign = search, base, -1 if monitor == "loss" else 1
        for number in range(2):  # a first look at every field: a wrong one ends it before any work
            ends = {name: _ends(space)[number] for name, space in search.space.items()}
            changed_config(base, ends)
        try:
            self._study = optuna.create_study(
                storage=storage,
                study_name=search.name,
                load_if_exists=True,
                direction="minimize" if monitor == "loss" else "maximize",
            )
        except Exception as error:  # each database has errors of its own
            told = " ".join(str(error).split())[:300]
            raise PedfracError(f"Optuna's storage ({STORAGE}): {told}") from error
        # an own seed for each beginning, or one that goes on would propose the same again
        self._study.sampler = optuna.samplers.TPESampler(
            seed=search.seed + len(self._trials), constant_liar=True
        )

    @property
    def hours_spent(self) -> float:
        """GPU hours of all trials that have ended."""
        return sum(trial.user_attrs.get("hours", 0.0) for trial in self._trials)

    @property
    def exhausted(self) -> bool:
        """Whether no further trial may start."""
        budget = self.search.gpu_hours
        spent = budget is not None and self.hours_spent >= budget
        return spent or len(self._trials) >= self.search.trials

    def unfinished(self) -> list[Trial]:
        """Return the trials that an earlier process started and did not finish."""
        return [self._trial(one.number, one.params) for one in self._of(TrialState.RUNNING)]

    def ask(self) -> Trial:
        """Return what is to be tried next."""
        trial = self._study.ask()
        values = {name: _suggest(trial, name, one) for name, one in self.search.space.items()}
        return self._trial(trial.number, values)

    def tell(self, number: int, outcome: Outcome) -> None:
        """Note how a trial ended."""
        trial = optuna.trial.Trial(self._study, self._trials[number]._trial_id)
        for step, metric in enumerate(outcome.metrics, start=1):
            trial.report(metric, step)
        for name in ("metric", "best_epoch", "hours"):
            trial.set_user_attr(name, getattr(outcome, name))
        if outcome.state == "complete":
            self._study.tell(number, outcome.metric)
        else:
            self._study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int) -> None:
        """Note that a trial's training failed; such values are not proposed again soon."""
        self._study.tell(number, state=TrialState.FAIL)

    def best(self) -> tuple[int, float, RetrainConfig]:
        """Return number, metric and configuration of the best completed trial.

        Raises PedfracError where there is none.
        """
        if not self._of(TrialState.COMPLETE):
            raise PedfracError(f"search {self.search.name}: no training was finished")
        found = self._study.best_trial
        return found.number, float(found.value or 0.0), changed_config(self.base, found.params)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a trial: number, how it ended, metric, epochs, hours, and its values."""
        return [
            {
                "trial": one.number,
                "state": _WORDS[one.state],
                "epochs": len(one.intermediate_values),
                **{name: one.user_attrs.get(name) for name in ("metric", "best_epoch", "hours")},
                **one.params,
            }
            for one in self._trials
        ]

    def _trial(self, number: int, values: Mapping[str, Any]) -> Trial:
        return Trial(number, values, changed_config(self.base, values), self._floor())

    def _floor(self) -> Floor:
        """Return the median of the finished trials' best metrics up to each epoch.

        The rule of Optuna's MedianPruner, fixed when a trial starts so that a training on another
        node needs no database. Losses are negated so that higher is better.
        """
        finished = self._of(TrialState.COMPLETE)
        if not self.search.pruning or len(finished) < self.search.pruning_after:
            return ()
        reached = [
            np.maximum.accumulate([self._sign * one.intermediate_values[step] for step in steps])
            for one in finished
            if (steps := sorted(one.intermediate_values))
        ]
        epochs = max(map(len, reached))
        # one that stopped early for want of progress keeps what it had reached
        filled = [np.pad(one, (0, epochs - len(one)), mode="edge") for one in reached]
        free = min(self.search.pruning_epochs, epochs)
        return [None] * free + np.median(filled, axis=0)[free:].tolist()

    @property
    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _of(self, state: TrialState) -> list[optuna.trial.FrozenTrial]:
        return [one for one in self._trials if one.state == state]


def falls_behind(history: Sequence[Epoch], monitor: str, floor: Floor) -> bool:
    """Whether a training's best metric so far is below what half of the others had by then."""
    sign = -1 if monitor == "loss" else 1
    best = max(sign * epoch["validation"][monitor] for epoch in history)
    least = floor[len(history) - 1] if len(history) <= len(floor) else None
    return least is not None and best < least


def storage_of(config: RetrainConfig) -> str:
    """Return the URL of Optuna's database: PEDFRAC_SEARCH_STORAGE, or SQLite in the artifacts.

    Raises PedfracError where artifacts are on S3 and the variable is not set.
    """
    if url := os.environ.get(STORAGE):
        return url
    if is_remote(config.artifact_root):
        raise PedfracError(
            f"artifacts are at {config.artifact_root}, where no database can lie: set {STORAGE} to "
            "the URL of one, such as postgresql+psycopg2://HOST/search, to remember the trials in"
        )
    folder = Path(config.artifact_root).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'search.db'}"


_WORDS = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def _suggest(trial: optuna.trial.Trial, name: str, space: Range) -> Any:
    if space.choices:
        return trial.suggest_categorical(name, space.choices)
    low, high = _ends(space)
    if space.whole:
        return trial.suggest_int(name, int(low), int(high), log=space.log)
    return trial.suggest_float(name, low, high, log=space.log)


def _ends(space: Range) -> tuple[Any, Any]:
    if space.choices:
        return space.choices[0], space.choices[-1]
    if space.low is None or space.high is None:
        raise ValueError("a range has both ends or choices")
    return (int(space.low), int(space.high)) if space.whole else (space.low, space.high)
