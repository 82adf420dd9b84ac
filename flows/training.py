"""Child flows: each trains one model. They return keys, never weights."""

from functools import partial
from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows.infrastructure.forms import Settings
from flows.infrastructure.handover import made
from flows.preparation import prepare
from pedfrac import pipeline
from pedfrac.config.retrain import RetrainConfig
from pedfrac.pipeline.keys import Prepared
from pedfrac.pipeline.preflight_scope import AGE, GENERALIST, Scope
from pedfrac.storage.inputs import Inputs
from tasks import training
from tasks.cancellation import RunCancelled
from tasks.preflight import check_first


def _fracture_run_name() -> str:
    group = flow_run.parameters.get("group")
    ages = RetrainConfig.model_validate(flow_run.parameters["config"]).cohort.ages
    return _run_name("generalist" if group is None else ages.name(group))


def _run_name(name: str) -> str:
    """Name a run by what it trains and, in cross-validation, by the fold it leaves out."""
    parameters = flow_run.parameters
    config = RetrainConfig.model_validate(parameters["config"])
    if config.split.held_out and (prepared := parameters.get("prepared")):
        name += pipeline.fold_in_words(config, Prepared.model_validate(prepared))
    return f"train-{name}"


@flow(name="train-age", flow_run_name=partial(_run_name, "age"))
def train_age(
    config: Settings,
    prepared: Prepared | None = None,
    parent_run: str | None = None,
    expected: Inputs | None = None,
) -> str:
    """Train the age classifier; return its key.

    Args:
        config: What is trained, on which data, and how
        prepared: Keys of the prepared data; left out: prepared first, or found
        parent_run: Run of MLflow under which this one is kept
        expected: What a retraining waits for; anything else is refused. Left empty by people
    """
    try:
        prepared = prepared or _checked_and_prepared(config, AGE)
        key = training.train_age(config, prepared, parent_run, expected)
        return made(config, key)
    except RunCancelled as error:
        return _cancelled(error)


@flow(name="train-fracture", flow_run_name=_fracture_run_name)
def train_fracture(
    config: Settings,
    group: int | None = None,
    prepared: Prepared | None = None,
    generalist: str | None = None,
    parent_run: str | None = None,
    expected: Inputs | None = None,
) -> str:
    """Train the specialist of an age group, or the generalist of all ages; return its key.

    A specialist that starts from the generalist trains it first if it is not given.

    Args:
        config: What is trained, on which data, and how
        group: Number of the age group, the youngest is 0; left out: all ages
        prepared: Keys of the prepared data; left out: prepared first, or found
        generalist: Key of the generalist to start from
        parent_run: Run of MLflow under which this one is kept
        expected: What a retraining waits for; anything else is refused. Left empty by people
    """
    trained = GENERALIST if group is None else config.cohort.ages.name(group)
    prepared = prepared or _checked_and_prepared(config, trained)
    warm = group is not None and config.fracture.specialist.start == "generalist"
    try:
        if warm and generalist is None:
            generalist = training.train_fracture(config, prepared, None, None, parent_run)
        key = training.train_fracture(config, prepared, group, generalist, parent_run, expected)
        return made(config, key)
    except RunCancelled as error:
        return _cancelled(error)


def _checked_and_prepared(config: RetrainConfig, trained: str) -> Prepared:
    """Prepare the data for a training that a person starts, after looking for what would stop it.

    A retraining has looked and prepared before it starts its trainings.
    """
    check_first(config, Scope(trained, alone=True))
    return prepare(config)


def _cancelled(error: RunCancelled) -> Any:
    """Return the state of a run that detected its own cancellation."""
    return Cancelled(message=str(error))
