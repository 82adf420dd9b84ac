"""Configuration of a whole retraining."""

from pathlib import Path

from pydantic import Field

from pedfrac.config.base import Section
from pedfrac.config.data import CohortConfig, DataConfig, PixelsConfig, Preparation, SplitConfig
from pedfrac.config.evaluation import EvaluationConfig, ExplanationConfig, RobustnessConfig
from pedfrac.config.locations import (
    DEFAULT_ARTIFACTS,
    DEFAULT_RESULTS,
    TrackingConfig,
    artifact_root,
    tracking_folder,
)
from pedfrac.config.promotion import PromotionConfig
from pedfrac.config.runtime import RuntimeConfig
from pedfrac.config.training import AgeConfig, FractureConfig, ModelConfig


class StudyConfig(Section):
    """What decides the results of a retraining: the data, and what is done with them."""

    data: DataConfig = Field(description="Data set")
    cohort: CohortConfig = Field(default_factory=CohortConfig, description="Cohort")
    split: SplitConfig = Field(default_factory=SplitConfig, description="Split")
    pixels: PixelsConfig = Field(default_factory=PixelsConfig, description="Pixels")
    fracture: FractureConfig = Field(
        default_factory=FractureConfig, description="Fracture classifiers"
    )
    age: AgeConfig = Field(default_factory=AgeConfig, description="Age classifier")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="Evaluation")
    robustness: RobustnessConfig = Field(default_factory=RobustnessConfig, description="Robustness")
    explanation: ExplanationConfig = Field(
        default_factory=ExplanationConfig, description="Explanation"
    )

    def preparation(self, model: ModelConfig) -> Preparation:
        """Return how images are prepared for a model."""
        return Preparation(size=model.size, **self.pixels.model_dump())


class RetrainConfig(StudyConfig):
    """One whole retraining: what is done, and where results, artifacts and runs are kept."""

    artifacts: str = Field(
        DEFAULT_ARTIFACTS,
        description="Folder or s3://bucket/prefix that keeps all artifacts; left as it is, "
        "PEDFRAC_ARTIFACTS counts if it is set",
    )
    results: str = Field(
        DEFAULT_RESULTS,
        description="Folder for copies of report, pictures and bundle; empty: no copies",
    )
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="Tracking")
    promotion: PromotionConfig = Field(default_factory=PromotionConfig, description="Promotion")
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig, description="Machine")

    @property
    def artifact_root(self) -> str:
        """The folder or URL of the artifacts, as configured or from the environment."""
        return artifact_root(self.artifacts)

    @property
    def tracking_folder(self) -> Path:
        """Where MLflow's SQLite lies if no tracking URI is given: a folder in any case."""
        return tracking_folder(self.artifact_root, self.results)
