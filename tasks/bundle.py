"""Assembling the bundle, as a task."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from pedfrac import pipeline
from pedfrac.config.retrain import RetrainConfig
from pedfrac.pipeline.keys import Prepared, Trained


@task(name="assemble bundle", cache_policy=NO_CACHE)
def assemble_bundle(config: RetrainConfig, prepared: Prepared, trained: Trained) -> str:
    """Return the key of the bundle of all trained models."""
    return pipeline.assemble_bundle(config, prepared, trained)
