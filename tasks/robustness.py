"""What the bundle's metrics withstand, and whether it needs bones, as a task."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from pedfrac import pipeline
from pedfrac.config.retrain import RetrainConfig
from pedfrac.pipeline.keys import Prepared


@task(name="check robustness", cache_policy=NO_CACHE)
def check_robustness(
    config: RetrainConfig, prepared: Prepared, bundle: str, evaluation: str
) -> str:
    """Return the key of the metrics on disturbed images and on images without bones."""
    return pipeline.check_robustness(config, prepared, bundle, evaluation)
