"""Evaluating the bundle on the test images, as a task."""

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac import pipeline
from pedfrac.config.retrain import RetrainConfig
from pedfrac.evaluation.evaluation import in_words, load_metrics, summary_rows
from pedfrac.pipeline.keys import Prepared


@task(name="evaluate bundle", cache_policy=NO_CACHE)
def evaluate_bundle(
    config: RetrainConfig, prepared: Prepared, bundle: str, folds: str | None = None
) -> str:
    """Return the key of the evaluation; show the metrics by age group."""
    key = pipeline.evaluate_bundle(config, prepared, bundle, folds)
    metrics = load_metrics(pipeline.store_of(config).get(key).path)
    create_table_artifact(
        summary_rows(metrics), key="metrics", description=f"Test images. {in_words(metrics)}"
    )
    return key
