"""The child flow that scores the images a fold holds out; the parent cuts and pools folds."""

from prefect import flow

from flows.infrastructure.forms import Settings
from flows.infrastructure.handover import made
from pedfrac.pipeline.keys import Prepared
from pedfrac.storage.inputs import Inputs
from tasks import folds


@flow(name="score-fold")
def score_fold(
    config: Settings, prepared: Prepared, bundle: str, expected: Inputs | None = None
) -> str:
    """Score the images that a fold holds out by its own networks; return the key.

    Args:
        config: What is retrained, on which data, and how
        prepared: Keys of the prepared data, with the split of the fold
        bundle: Key of the bundle of the networks that were trained without the fold
        expected: What a retraining waits for; anything else is refused
    """
    return made(config, folds.score_fold(config, prepared, bundle, expected))
