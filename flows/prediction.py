"""Scoring of images, as a flow of its own: for a worker with a GPU, or on a schedule."""

from typing import Any

from prefect import flow
from prefect.states import Completed

from pedfrac.config.serving import PredictionConfig
from pedfrac.serving.images import NoImage
from tasks import prediction


@flow(name="predict")
def predict(config: PredictionConfig, watch: bool = False) -> str:
    """Score images with a bundle into a table; return how many were scored.

    Args:
        config: Which images, by which bundle, and where the scores go
        watch: End well where no image has come yet, as a run on a schedule should
    """
    try:
        return prediction.predict(config)
    except NoImage as error:
        if not watch:
            raise
        state: Any = Completed(name="No image yet", message=str(error), data=str(error))
        return state
