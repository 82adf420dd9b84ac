"""Configuration of promotion and its gate."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pedfrac.config.base import Fraction, NoneOrNumber, Numbers, Section, comma_separated
from pedfrac.config.locations import (
    DEFAULT_ARTIFACTS,
    TrackingConfig,
    artifact_root,
    tracking_folder,
)

Aspect = Literal[
    "data",
    "cohort",
    "split rules",
    "age bounds",
    "classes",
    "preparation",
    "network",
    "training",
    "operating points",
    "code",
]


class MarginsConfig(Section):
    """By how much a challenger may be worse than the champion on the same test images.

    Held where the lower bound of the paired difference is above minus the margin.
    """

    auroc: Fraction = Field(0.03, description="AUROC of all images")
    auroc_of_group: Fraction = Field(0.1, description="AUROC of an age group")
    sensitivity: Fraction = Field(0.08, description="Sensitivity on all images")
    specificity: Fraction = Field(0.08, description="Specificity on all images")


class FloorsConfig(Section):
    """What a model in use must reach; the lower bound of the interval counts."""

    sensitivity: Fraction = Field(0.8, description="Sensitivity on all test images")
    specificity: Fraction = Field(0.7, description="Specificity on all test images")
    sensitivity_no_cast: Fraction = Field(0.75, description="Sensitivity on images without a cast")
    specificity_no_cast: Fraction = Field(0.65, description="Specificity on images without a cast")
    sensitivity_initial: Fraction = Field(0.75, description="Sensitivity on initial exams")
    specificity_initial: Fraction = Field(0.65, description="Specificity on initial exams")


class GateConfig(Section):
    """What must hold before a challenger may replace the champion, set before any is trained."""

    margins: MarginsConfig = Field(default_factory=MarginsConfig, description="Not worse by")
    floors: FloorsConfig = Field(default_factory=FloorsConfig, description="Floors")
    patients: int = Field(
        10, ge=2, description="An age group counts from so many patients, with and without fracture"
    )
    test_images: Fraction = Field(
        0.95, description="Share of the champion's test images on which the challenger was tested"
    )
    changed_truth: Fraction = Field(
        0.02, description="Largest share of common test images whose label differs between the two"
    )
    calibration_error: NoneOrNumber = Field(
        0.15, gt=0, le=1, description="Largest expected calibration error; none: not asked"
    )
    slope: Numbers = Field(
        (0.3, 3.0),
        min_length=2,
        max_length=2,
        description="Least and largest calibration slope (1: right probabilities)",
    )
    observed_expected: Numbers = Field(
        (0.5, 2.0),
        min_length=2,
        max_length=2,
        description="Least and largest number of fractures over that expected",
    )
    new_failing_subgroups: bool = Field(
        False, description="Allow subgroups that newly do worse than the others"
    )
    pointing: Fraction = Field(
        0.2, description="By how much heat maps may point at fractures less often than champion's"
    )
    pointing_images: int = Field(
        10, ge=1, description="Heat maps of an age group count from so many images with boxes"
    )
    above_chance: bool = Field(
        True, description="Heat maps must not be shown to point at fractures less than by chance"
    )
    may_change: Annotated[tuple[Aspect, ...], BeforeValidator(comma_separated)] = Field(
        ("data", "training", "operating points", "code"),
        description="What may differ between champion and challenger; anything else is refused",
    )

    @model_validator(mode="after")
    def _bounds_hold_one(self) -> Self:
        for name in ("slope", "observed_expected"):
            low, high = getattr(self, name)
            if not 0 <= low <= 1 <= high:
                raise ValueError(f"{name} {low}, {high}: must enclose 1, what is right")
        return self


class PromotionConfig(Section):
    """How a challenger becomes the champion."""

    after_retraining: bool = Field(
        False, description="A retraining that uses deployments begins a promotion at its end"
    )
    approval: Literal["person", "automatic"] = Field(
        "person",
        description="Who decides once the gate let a challenger through; automatic counts only "
        "where the operator's file says so, too, and no criterion of the gate differs from it",
    )
    deadline_hours: float = Field(
        72, gt=0, description="Hours after which an undecided challenger is not promoted"
    )
    gate: GateConfig = Field(default_factory=GateConfig, description="Gate")


class PromoteConfig(Section):
    """One promotion: where versions and artifacts lie, and what must hold."""

    artifacts: str = Field(
        DEFAULT_ARTIFACTS,
        description="Folder or s3://bucket/prefix that keeps all artifacts; left as it is, "
        "PEDFRAC_ARTIFACTS counts if it is set",
    )
    results: str = Field(
        "results", description="Where MLflow's SQLite lies if artifacts are on S3 and no URI is set"
    )
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="Tracking")
    promotion: PromotionConfig = Field(default_factory=PromotionConfig, description="Promotion")

    @property
    def artifact_root(self) -> str:
        """The folder or URL of the artifacts, as configured or from the environment."""
        return artifact_root(self.artifacts)

    @property
    def tracking_folder(self) -> Path:
        """Where MLflow's SQLite lies if no tracking URI is given: a folder in any case."""
        return tracking_folder(self.artifact_root, self.results)
