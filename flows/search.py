"""The search for better training settings, as a flow whose trials run where trainings run."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.futures import as_completed
from prefect.logging import get_run_logger
from prefect.states import Cancelled, State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BaseModel, ConfigDict

from flows.infrastructure.dispatch import dispatch
from flows.infrastructure.forms import Settings
from flows.infrastructure.handover import made
from flows.preparation import prepare
from pedfrac import mlflow_runs
from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.search import SearchConfig
from pedfrac.pipeline.keys import Prepared
from pedfrac.pipeline.preflight_scope import Scope
from pedfrac.pipeline.search import BEST, Attempt, searched_training
from pedfrac.storage.files import export
from pedfrac.storage.inputs import Inputs
from pedfrac.training.hyperparameter_search import Search, Trial, storage_of
from tasks import search as tasks
from tasks.cancellation import RunCancelled
from tasks.preflight import check_first


class Found(BaseModel):
    """What a search hands back: the best trial, its validation metric, and where it is written."""

    model_config = ConfigDict(frozen=True)
    search: str
    trial: int
    monitor: str
    metric: float
    hours: float
    best: str


@flow(name="try-training", flow_run_name="try-{number}-of-{search}")
def try_training(
    config: Settings,
    prepared: Prepared,
    model: str,
    search: str,
    number: int,
    floor: list[float | None],
    expected: Inputs | None = None,
) -> str:
    """Train one configuration of a search; return the key of its outcome.

    Args:
        config: What is trained, on which data, and how
        prepared: Keys of the prepared data
        model: What is trained: generalist, age, or the name of an age group
        search: Name of the search
        number: Number of the trial
        floor: Validation metrics below which it ends, after each epoch
        expected: What the search waits for; anything else is refused
    """
    attempt = Attempt(config, prepared, model, search, number, tuple(floor))
    try:
        return made(config, tasks.try_training(attempt, expected))
    except RunCancelled as error:
        state: Any = Cancelled(message=str(error))
        return state


@flow(name="search")
def search(config: Settings, search: SearchConfig | None = None) -> Found:
    """Search for better training settings by validation images; the best are written as YAML.

    A search of the same name continues where it stopped. The test set is not used. Before anything
    is computed, all that is known to be wrong with its training is looked for, and ends the run.

    Args:
        config: What is trained, on which data, and how; the search changes it
        search: What is searched, and for how long
    """
    search = search or SearchConfig()
    check_first(config, Scope(search.model))
    prepared = prepare(config)
    monitor = searched_training(config, prepared, search.model).training.monitor
    study = Search(search, config, monitor, storage_of(config))
    settings = search.model_dump(mode="json")
    with mlflow_runs.start_run(config.tracking, config.tracking_folder, "search", settings) as run:
        _run_trials(config, prepared, study, run)
        kept = tasks.keep_search(config, study)
        number, metric, _ = study.best()
        run.log_metrics({f"best.{monitor}": metric, "hours": study.hours_spent})
        run.log_files(kept.path)
    best = kept.file(BEST)
    if config.results:
        best = Path(config.results) / "search" / BEST
        export(kept.path, best.parent)
    return Found(
        search=kept.key,
        trial=number,
        monitor=monitor,
        metric=metric,
        hours=study.hours_spent,
        best=str(best),
    )


def _run_trials(
    config: RetrainConfig, prepared: Prepared, study: Search, run: mlflow_runs.Run
) -> None:
    """Keep as many trials under way as may be, those that an earlier process left first."""
    deployed = config.runtime.dispatch == "deployments"
    at_a_time = study.search.parallel if deployed else config.runtime.parallel
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=at_a_time)
    waiting, running = study.unfinished(), dict[Any, tuple[Trial, Attempt]]()
    with runner:
        while True:
            while len(running) < at_a_time and (waiting or not study.exhausted):
                trial = waiting.pop(0) if waiting else study.ask()
                attempt = _attempt(trial, prepared, study)
                running[runner.submit(dispatch, _dispatched(attempt))] = trial, attempt
            if not running:
                return
            ended = next(iter(as_completed(list(running))))
            _tell(study, *running.pop(ended), ended.state, run)


def _attempt(trial: Trial, prepared: Prepared, study: Search) -> Attempt:
    return Attempt(
        trial.config, prepared, study.search.model, study.search.name, trial.number, trial.floor
    )


def _dispatched(attempt: Attempt) -> dict[str, Any]:
    given = {
        "config": attempt.config,
        "prepared": attempt.prepared,
        "model": attempt.model,
        "search": attempt.search,
        "number": attempt.number,
        "floor": list(attempt.floor),
    }
    return {"name": attempt.name, "child": try_training, "work": attempt, "given": given}


def _tell(
    study: Search, trial: Trial, attempt: Attempt, state: State[Any], run: mlflow_runs.Run
) -> None:
    if state.is_cancelled():
        raise RunCancelled(f"{attempt.name}: was cancelled")
    if not attempt.done:
        study.fail(trial.number)
        logger = get_run_logger()
        logger.warning("%s failed: %s", attempt.name, state.result(raise_on_failure=False))
        return
    outcome = attempt.outcome
    study.tell(trial.number, outcome)
    run.log_metrics({"metric": outcome.metric, "hours": study.hours_spent}, step=trial.number)
