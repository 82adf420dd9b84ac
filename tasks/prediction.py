"""Scoring of films, as a task."""

from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac.config.serving import PredictionConfig
from pedfrac.serving.prediction import predict_films
from tasks.progress import progress


@task(name="predict films", cache_policy=NO_CACHE)
def predict(config: PredictionConfig) -> str:
    """Score films into the table that the configuration names; return and show how many.

    What is shown are numbers alone: the paths of films may tell of patients.
    """
    with progress("prediction", "scoring films") as show:
        done = predict_films(config, lambda count, total: show(count, total, ""))
    counts = done.calls.most_common()
    rows: list[Any] = [{"call": call or "failed", "films": films} for call, films in counts]
    create_table_artifact(rows, key="prediction", description=done.in_words())
    return done.in_words()
