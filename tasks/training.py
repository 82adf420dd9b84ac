"""Training one model, as a task: the same engine, watched by MLflow, the terminal and the UI."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from pedfrac import steps, tracking
from pedfrac.config import RetrainConfig, TrainingConfig
from pedfrac.steps import Prepared
from pedfrac.training import Epoch, OnEpoch
from tasks.progress import progress


@task(name="train age classifier", cache_policy=NO_CACHE)
def train_age(config: RetrainConfig, prepared: Prepared, parent_run: str | None) -> str:
    """Return the key of the trained age classifier."""
    with _watched(config, "age", config.age.training, config.age, parent_run) as watch:
        return watch(lambda on_epoch: steps.train_age(config, prepared, on_epoch))


@task(
    name="train fracture classifier",
    task_run_name="train fracture classifier {group}",
    cache_policy=NO_CACHE,
)
def train_fracture(
    config: RetrainConfig,
    prepared: Prepared,
    group: int | None,
    generalist: str | None,
    parent_run: str | None,
) -> str:
    """Return the key of a trained specialist, or of the generalist where ``group`` is None."""
    name = "generalist" if group is None else config.cohort.ages.name(group)
    training = config.fracture.training if group is None else config.fracture.specialist_training
    with _watched(config, name, training, config.fracture, parent_run) as watch:
        return watch(
            lambda on_epoch: steps.train_fracture(config, prepared, group, generalist, on_epoch)
        )


@contextmanager
def _watched(
    config: RetrainConfig,
    name: str,
    training: TrainingConfig,
    section: Any,
    parent_run: str | None,
) -> Iterator[Callable[[Callable[[OnEpoch], str]], str]]:
    """Yield a caller of trainings; a run of MLflow opens at the first epoch, if there is one."""
    logger = get_run_logger()
    with ExitStack() as stack:
        show = stack.enter_context(progress(f"training-{slug(name)}", f"training {name}"))
        runs: list[tracking.Run] = []

        def on_epoch(epoch: Epoch) -> None:
            if not runs:
                runs.append(stack.enter_context(_open_run(config, name, section, parent_run)))
            runs[0].log_epoch(epoch)
            show(epoch["epoch"], training.epochs, _in_words(epoch))
            logger.info(
                "%s: epoch %d/%d %s", name, epoch["epoch"], training.epochs, _in_words(epoch)
            )

        def watch(step: Callable[[OnEpoch], str]) -> str:
            key = step(on_epoch)
            if runs:
                runs[0].log_tags({"artifact": key})
                runs[0].log_files(steps.store_of(config).get(key).path, "model")
                runs[0].log_confusion(steps.validation_confusion(config, key), "confusion")
            return key

        yield watch


def _open_run(config: RetrainConfig, name: str, section: Any, parent_run: str | None) -> Any:
    parameters = section.model_dump(mode="json") | {"cohort": config.cohort.model_dump(mode="json")}
    return tracking.start_run(
        config.tracking, Path(config.artifacts), name, parameters, parent=parent_run
    )


def _in_words(epoch: Epoch) -> str:
    figures = epoch["validation"]
    words = [
        f"{name} {figures[name]:.3f}"
        for name in ("loss", "auroc", "f1", "accuracy")
        if figures[name] is not None
    ]
    return "validation " + ", ".join(words) + (" *" if epoch["best"] else "")


def slug(name: str) -> str:
    """Return a name in the letters that a Prefect artifact's key may have."""
    return "".join(c if c.isalnum() else "-" for c in name.lower())
