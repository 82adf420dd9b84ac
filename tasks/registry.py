"""Registering the bundle as a version of the model, as a task."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from pedfrac import mlflow_runs, pipeline
from pedfrac.config.retrain import RetrainConfig
from pedfrac.promotion.registry import Registry


@task(name="register bundle", cache_policy=NO_CACHE)
def register_bundle(
    config: RetrainConfig, bundle: str, run: mlflow_runs.Run, tags: dict[str, str]
) -> int:
    """Register a bundle under the run that made it; return the number of the version."""
    folder = pipeline.store_of(config).get(bundle).path
    registry = Registry.of(config.tracking, config.tracking_folder)
    return registry.register(folder, run.run_id, tags | {"parent run": run.run_id}).number
