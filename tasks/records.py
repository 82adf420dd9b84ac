"""Reading and checking the data set, as a task."""

from typing import Any

import pandas as pd
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac import pipeline
from pedfrac.config.retrain import RetrainConfig
from tasks.progress import progress


@task(name="read records", cache_policy=NO_CACHE)
def read_records(config: RetrainConfig) -> str:
    """Return the key of the records; show what could not be used, by name."""
    with progress("records-progress", "reading images") as show:
        key = pipeline.read_records(config, lambda done, total: show(done, total, ""))
    issues = pd.read_csv(pipeline.store_of(config).get(key).file("issues.csv"), dtype=str).head(200)
    rows: list[Any] = issues.fillna("").to_dict("records")
    create_table_artifact(
        rows,
        key="issues",
        description="Images and rows that cannot be used or contradict themselves (first 200)",
    )
    return key
