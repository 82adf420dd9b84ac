"""Scoring of images, as a task."""

from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac.config.serving import PredictionConfig
from pedfrac.pipeline.prediction import predict_images
from tasks.progress import progress


@task(name="predict images", cache_policy=NO_CACHE)
def predict(config: PredictionConfig) -> str:
    """Score images into the table that the configuration names; return and show how many.

    Only counts are shown, because the paths of images may identify patients.
    """
    with progress("prediction", "scoring images") as show:
        done = predict_images(config, lambda count, total: show(count, total, ""))
    counts = done.calls.most_common()
    rows: list[Any] = [{"call": call or "failed", "images": images} for call, images in counts]
    create_table_artifact(rows, key="prediction", description=done.in_words())
    return done.in_words()
