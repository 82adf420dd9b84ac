"""Selecting the cohort, as a task."""

from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac import pipeline
from pedfrac.config.retrain import RetrainConfig


@task(name="select cohort", cache_policy=NO_CACHE)
def select_cohort(config: RetrainConfig, records: str) -> str:
    """Return the key of the cohort; show what each exclusion removed."""
    key = pipeline.select_cohort(config, records)
    counts = pipeline.store_of(config).get(key).read_json("cohort.json")
    rows: list[Any] = [{"step": row["step"], **row} for row in counts["steps"]]
    create_table_artifact(rows, key="cohort", description="Images after each exclusion")
    return key
