"""Scoring of films, as a flow of its own: for a worker with a GPU, or on a schedule."""

from prefect import flow

from pedfrac.config import PredictionConfig
from tasks import prediction


@flow(name="predict")
def predict(config: PredictionConfig) -> str:
    """Score films with a bundle into a table; return how many were scored.

    Args:
        config: Which films, by which bundle, and where the scores go
    """
    return prediction.predict(config)
