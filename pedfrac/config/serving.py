"""Configuration of prediction."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pedfrac.config.base import Section
from pedfrac.config.locations import DEFAULT_ARTIFACTS

Runtime = Literal["torch", "onnx"]


class PredictionConfig(Section):
    """Scoring of images with a bundle."""

    images: tuple[str, ...] = Field(
        min_length=1, description="Images, folders, CSV tables (column file) or s3://bucket/prefix"
    )
    bundle: str = Field(
        description="Folder of a bundle, or its key in the artifact store; champion: the one "
        "that was promoted last"
    )
    output: str | None = Field(
        None, description="Scores to write: .parquet, .csv or .json, here or at s3://"
    )
    dicom_out: str | None = Field(
        None, description="Folder for DICOM of what came as DICOM: report and heat map"
    )
    ages: str | None = Field(None, description="CSV of filestem and age in years")
    labels: str | None = Field(None, description="Folder of YOLO labels, to take side markers out")
    prevalence: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of fractured images where the scores are used; probabilities and "
        "thresholds are moved to it, calls stay as they are; none: as in the intended use",
    )
    artifacts: str = Field(DEFAULT_ARTIFACTS, description="The artifact store, where it is needed")
    batch_size: int = Field(32, ge=1, description="Images that are read and scored together")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    runtime: Runtime = Field("torch", description="onnx for a bundle that was exported")

    @model_validator(mode="after")
    def _dicom_needs_a_table(self) -> Self:
        if self.dicom_out and not self.output:
            raise ValueError("dicom_out needs output: the table says which file is whose")
        return self
