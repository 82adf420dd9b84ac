"""A search's trials and its end, as tasks."""

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from pedfrac.config.retrain import RetrainConfig
from pedfrac.pipeline import search as steps
from pedfrac.pipeline.search import Attempt
from pedfrac.storage.inputs import Inputs
from pedfrac.storage.manifest import Artifact
from pedfrac.training.hyperparameter_search import Search
from pedfrac.training.trainer import Epoch
from tasks.cancellation import refuse_cancelled
from tasks.progress import progress
from tasks.training import in_words, slug


@task(name="try training", cache_policy=NO_CACHE)
def try_training(attempt: Attempt, expected: Inputs | None = None) -> str:
    """Return the key of a trial's outcome.

    Raises PedfracError where the inputs are not the ``expected`` ones.
    """
    if expected:
        attempt.inputs.refuse_other(expected, attempt.name)
    logger, epochs = get_run_logger(), attempt.training.training.epochs
    with progress(slug(attempt.name), attempt.name) as show:

        def on_epoch(epoch: Epoch) -> None:
            refuse_cancelled()
            show(epoch["epoch"], epochs, in_words(epoch))
            logger.info("%s: epoch %d/%d %s", attempt.name, epoch["epoch"], epochs, in_words(epoch))

        return attempt.run(on_epoch)


@task(name="keep search", cache_policy=NO_CACHE)
def keep_search(config: RetrainConfig, search: Search) -> Artifact:
    """Keep the best configuration and all trials, which the UI shows as a table."""
    kept = steps.keep_search(config, search)
    create_table_artifact(
        table=search.rows(), key=slug(f"search-{search.search.name}"), description="Trials"
    )
    return kept
