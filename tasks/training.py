"""Training one model, as a task: the same engine, watched by MLflow, the terminal and the UI."""

from contextlib import ExitStack
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import task_run

from pedfrac import mlflow_runs, pipeline
from pedfrac.config.retrain import RetrainConfig
from pedfrac.pipeline.keys import Prepared
from pedfrac.pipeline.training import Training
from pedfrac.storage.inputs import Inputs
from pedfrac.training.trainer import Epoch
from tasks.cancellation import refuse_cancelled, refuse_cancelled_surely
from tasks.progress import progress


def _run_name() -> str:
    group = task_run.parameters["group"]
    return "train generalist" if group is None else f"train specialist {group}"


@task(name="train age classifier", cache_policy=NO_CACHE)
def train_age(
    config: RetrainConfig,
    prepared: Prepared,
    parent_run: str | None,
    expected: Inputs | None = None,
) -> str:
    """Return the key of the trained age classifier; see ``train_fracture`` for ``expected``."""
    return _train(pipeline.age_training(config, prepared), config.age, parent_run, expected)


@task(
    name="train fracture classifier",
    task_run_name=_run_name,
    cache_policy=NO_CACHE,
)
def train_fracture(
    config: RetrainConfig,
    prepared: Prepared,
    group: int | None,
    generalist: str | None,
    parent_run: str | None,
    expected: Inputs | None = None,
) -> str:
    """Return the key of a trained specialist, or of the generalist where ``group`` is None.

    Raises PedfracError before anything is trained where the inputs are not the ``expected`` ones.
    """
    training = pipeline.fracture_training(config, prepared, group, generalist)
    return _train(training, config.fracture, parent_run, expected)


def _train(
    training: Training, section: Any, parent_run: str | None, expected: Inputs | None
) -> str:
    """Run a training with progress in MLflow, the terminal and the UI; return its key.

    The MLflow run starts at the first epoch, so a model that already exists has none.
    """
    logger, config, name = get_run_logger(), training.config, training.name
    if expected:
        training.inputs.refuse_other(expected, name)
    epochs = training.training.epochs
    with ExitStack() as stack:
        show = stack.enter_context(progress(f"training-{slug(name)}", f"training {name}"))
        runs: list[mlflow_runs.Run] = []

        def on_epoch(epoch: Epoch) -> None:
            refuse_cancelled()
            if not runs:
                runs.append(stack.enter_context(_open_run(config, name, section, parent_run)))
            runs[0].log_epoch(epoch)
            show(epoch["epoch"], epochs, in_words(epoch))
            logger.info("%s: epoch %d/%d %s", name, epoch["epoch"], epochs, in_words(epoch))

        key = training.run(on_epoch, refuse_cancelled_surely)
        if runs:
            runs[0].log_tags({"artifact": key})
            runs[0].log_files(pipeline.store_of(config).get(key).path, "model")
            runs[0].log_confusion(pipeline.validation_confusion(config, key), "confusion")
    return key


def _open_run(config: RetrainConfig, name: str, section: Any, parent_run: str | None) -> Any:
    parameters = section.model_dump(mode="json") | {"cohort": config.cohort.model_dump(mode="json")}
    return mlflow_runs.start_run(
        config.tracking, config.tracking_folder, name, parameters, parent=parent_run
    )


def in_words(epoch: Epoch) -> str:
    """Return the validation metrics of an epoch, starred where it is the best so far."""
    metrics = epoch["validation"]
    words = [
        f"{name} {metrics[name]:.3f}"
        for name in ("loss", "auroc", "f1", "accuracy")
        if metrics[name] is not None
    ]
    return "validation " + ", ".join(words) + (" *" if epoch["best"] else "")


def slug(name: str) -> str:
    """Return a name in the letters that a Prefect artifact's key may have."""
    return "".join(c if c.isalnum() else "-" for c in name.lower())
