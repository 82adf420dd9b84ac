"""What is known to be wrong before anything is computed, as a task."""

import logging

from prefect import task
from prefect.cache_policies import NO_CACHE

from pedfrac import pipeline
from pedfrac.config.retrain import RetrainConfig
from pedfrac.pipeline.preflight_scope import WHOLE, Scope

logger = logging.getLogger(__name__)


@task(name="preflight", cache_policy=NO_CACHE)
def check_first(config: RetrainConfig, scope: Scope = WHOLE) -> None:
    """Raise PedfracError with all that would stop a run; log what would weaken what it finds."""
    for finding in pipeline.require_sound(config, scope):
        logger.warning("%s: %s", finding.where, finding.what)
