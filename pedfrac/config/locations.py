"""Where artifacts, results and MLflow runs are kept."""

import os
from pathlib import Path

from pydantic import Field

from pedfrac.config.base import Section
from pedfrac.storage.uri import is_remote

DEFAULT_MODEL = "pedfrac"


class TrackingConfig(Section):
    """Where MLflow keeps runs and models."""

    uri: str | None = Field(
        None,
        description="Tracking URI; none: MLFLOW_TRACKING_URI, else SQLite in the artifacts, "
        "or in the results where artifacts are on S3",
    )
    experiment: str = Field("pedfrac", min_length=1, description="Name of the experiment")
    registry: bool = Field(
        True, description="Register the bundle of a finished retraining as a version of the model"
    )
    model: str = Field(
        DEFAULT_MODEL, pattern="^[^/:]+$", description="Name of the model in MLflow's registry"
    )


DEFAULT_ARTIFACTS, DEFAULT_RESULTS = "artifacts", "results"


def artifact_root(configured: str = DEFAULT_ARTIFACTS) -> str:
    """Return the root as configured; where that is the default, PEDFRAC_ARTIFACTS if it is set."""
    if configured == DEFAULT_ARTIFACTS:
        return os.environ.get("PEDFRAC_ARTIFACTS") or configured
    return configured


def tracking_folder(artifacts: str, results: str = DEFAULT_RESULTS) -> Path:
    """Return where SQLite lies: beside the artifacts, or in the results where those are on S3."""
    return Path((results or ".") if is_remote(artifacts) else artifacts)
