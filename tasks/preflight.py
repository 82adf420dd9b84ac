"""What is known to be wrong before anything is computed, as a task."""

import logging

from prefect import task
from prefect.cache_policies import NO_CACHE

from pedfrac import pipeline
from pedfrac.config.retrain import RetrainConfig

logger = logging.getLogger(__name__)


@task(name="preflight", cache_policy=NO_CACHE)
def check_first(config: RetrainConfig) -> None:
    """Raise PedfracError with all that would stop a retraining; log what would weaken it."""
    for finding in pipeline.require_sound(config):
        logger.warning("%s: %s", finding.where, finding.what)
