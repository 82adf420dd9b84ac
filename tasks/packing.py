"""Packing prepared images, as a task."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from pedfrac import pipeline
from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.training import ModelConfig
from tasks.progress import progress


@task(name="pack images", task_run_name="pack images at {model.size} px", cache_policy=NO_CACHE)
def pack_images(config: RetrainConfig, records: str, model: ModelConfig) -> str:
    """Return the key of the pack of images at a model's size."""
    with progress(f"pack-progress-{model.size}", f"packing images at {model.size} px") as show:
        return pipeline.pack_images(
            config, records, model, lambda done, total: show(done, total, "")
        )
