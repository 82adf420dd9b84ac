"""Configuration of monitoring."""

import math
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from pedfrac.config.base import Fraction, NoneOrNumber, Section
from pedfrac.config.locations import DEFAULT_ARTIFACTS, TrackingConfig, artifact_root
from pedfrac.storage.uri import is_remote

MOST_TESTS = 20  # of one window, whose p values are corrected for their number


class DriftConfig(Section):
    """When a change is one."""

    false_alarm_rate: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="How often, at most, a window without any change is called changed",
    )
    smallest_change: float = Field(
        0.1,
        ge=0,
        description="Population stability index, beyond chance, from which a change matters",
    )
    smallest_fall: Fraction = Field(
        0.05, description="Fall of AUROC, sensitivity, specificity or calibration that matters"
    )
    fewest_images: int = Field(50, ge=10, description="Images that a window needs to be compared")
    most_images: int = Field(
        2000, ge=100, description="Images of a larger window that are compared, of whole patients"
    )
    draws: int = Field(4999, ge=99, description="Random draws behind each p value")
    seed: int = Field(0, ge=0, description="Seed of the draws")

    @model_validator(mode="after")
    def _draws_suffice(self) -> Self:
        if self.draws * self.false_alarm_rate < MOST_TESTS:
            # at the smallest rates that a float holds the quotient is infinite
            quotient = MOST_TESTS / self.false_alarm_rate
            least = math.ceil(quotient) if math.isfinite(quotient) else "infinitely many"
            raise ValueError(
                f"draws {self.draws} are too few to tell a change at false_alarm_rate "
                f"{self.false_alarm_rate:g}; at least {least} are needed"
            )
        return self


class MonitorConfig(DriftConfig):
    """Comparison of images that were scored at work with those that made the bundle."""

    scores: tuple[str, ...] = Field(
        min_length=1, description="Tables that predict wrote: .parquet, .csv or .json, or at s3://"
    )
    bundle: str = Field(
        description="Folder of the bundle, or its key in the artifact store; champion: the one "
        "that was promoted last"
    )
    labels: str | None = Field(
        None, description="CSV with the columns file and fractured (1, 0), when labels have come"
    )
    since: str | None = Field(None, description="Only images scored from this date or time on")
    until: str | None = Field(None, description="Only images scored before this date or time")
    last_days: NoneOrNumber = Field(
        None, gt=0, description="Only images scored in so many days before now"
    )
    output: str = Field("drift", description="Folder for copies of page and metrics; empty: none")
    artifacts: str = Field(DEFAULT_ARTIFACTS, description="The artifact store that keeps them")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="Tracking")

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.since and self.last_days is not None:
            raise ValueError("choose either since or last_days, not both")
        return self

    @property
    def artifact_root(self) -> str:
        """The folder or URL of the artifacts, as configured or from the environment."""
        return artifact_root(self.artifacts)

    @property
    def tracking_folder(self) -> Path:
        """Where MLflow's SQLite lies if no tracking URI is given: a folder in any case."""
        root = self.artifact_root
        return Path((self.output or ".") if is_remote(root) else root)
