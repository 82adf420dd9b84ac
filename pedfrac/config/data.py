"""Configuration of the dataset, the cohort, the split and image preparation."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pedfrac.age_groups import AgeGroups
from pedfrac.config.base import Fraction, NoneOrCount, Numbers, Projections, Section, on_or_off


class DataConfig(Section):
    """Where the data set lies and how much of it may be missing."""

    root: str = Field(
        description="Folder or s3://bucket/prefix with dataset.csv, images*/ and the YOLO labels"
    )
    images: bool = Field(True, description="Find and check the image files (off: metadata only)")
    missing: Literal["error", "drop"] = Field(
        "error", description="What rows without an image are: an error, or left out by name"
    )
    missing_allowed: int = Field(
        0, ge=0, description="With 'error': how many images may be missing before the run stops"
    )
    unlabelled: Literal["error", "allow"] = Field(
        "error",
        description="What images without a label file are, and a set whose fractured images have "
        "no fracture box: an error, or allowed (their side markers stay)",
    )
    unlabelled_allowed: Fraction = Field(
        0.1, description="With 'error': share of images that may have no label file"
    )
    dropped_allowed: Fraction = Field(
        0.5,
        description="Share of rows that may be unusable before the run stops; rows without an "
        "image do not count",
    )


class CohortConfig(Section):
    """Which images take part, and where the age groups are cut."""

    age_bounds: Numbers = Field(
        (0, 1.5, 5, 10, 15, 19),
        min_length=2,
        description="Age bounds in years; each group is right-open, the last bound is inclusive",
    )
    exclude_metal: bool = Field(True, description="Leave out images with metal")
    exclude_uncertain: bool = Field(False, description="Leave out images with uncertain diagnosis")
    exclude_cast: bool = Field(False, description="Leave out images with a cast")
    exclude_osteopenia: bool = Field(False, description="Leave out images with osteopenia")
    projections: Projections = Field(
        (1, 2, 3), min_length=1, description="Projections kept: 1 AP, 2 lateral, 3 other"
    )

    @model_validator(mode="after")
    def _bounds_ascend(self) -> Self:
        if any(a >= b for a, b in zip(self.age_bounds, self.age_bounds[1:], strict=False)):
            raise ValueError(f"age_bounds {self.age_bounds} must ascend strictly")
        if self.age_bounds[0] < 0:
            raise ValueError(f"age_bounds {self.age_bounds} must not be negative")
        return self

    @property
    def ages(self) -> AgeGroups:
        """The age groups that the bounds cut."""
        return AgeGroups(self.age_bounds)


class FoldConfig(Section):
    """How the patients that do not test are divided, whole or in folds."""

    validation_fraction: float = Field(
        0.15, gt=0, lt=1, description="Share of the other patients that validate"
    )
    folds: NoneOrCount = Field(
        None,
        ge=2,
        description="Cut the patients into so many folds; without a fold, each is held out in turn "
        "from networks of its own, for pooled metrics beside those of the test set",
    )
    balance_training: bool = Field(
        False, description="Keep as many fractured as normal training images in each year of age"
    )
    seed: int = Field(0, ge=0, description="Seed of every draw")


class SplitConfig(FoldConfig):
    """How patients are divided into test, training and validation."""

    file: str | None = Field(
        None, description="CSV of filestem,split (train, valid, test) made elsewhere; else by rule"
    )
    test_per_year: int = Field(
        10, ge=1, description="Test set: up to so many fractured and normal images per year of age"
    )
    test_images_per_patient: int = Field(
        1, ge=1, description="Test set: at most so many images of one patient"
    )
    fold: NoneOrCount = Field(
        None, ge=0, description="With folds: only this one counts, and validates; none: all"
    )
    previous: str = Field(
        "latest",
        description="Earlier split whose patients keep their place: 'latest' in the artifact "
        "store for the same data and rules, a split.csv, or 'none'",
    )

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold is None:
            return self
        if self.folds is None:
            raise ValueError(f"fold {self.fold} is one of folds, which must be given, too")
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} must be below folds {self.folds}")
        if self.file is not None:
            raise ValueError("choose either file or fold, not both")
        return self

    @property
    def held_out(self) -> int:
        """Number of folds that are held out in turn; 0 for none."""
        return self.folds or 0 if self.fold is None else 0

    @property
    def of_the_bundle(self) -> Self:
        """The split settings of the bundle itself, without folds that are held out in turn."""
        return self.model_copy(update={"folds": None}) if self.held_out else self


class PixelsConfig(Section):
    """What is done to the pixels before anything else sees them."""

    markers: Annotated[Literal["fill", "inpaint", "off"], BeforeValidator(on_or_off)] = Field(
        "fill", description="Side markers and burnt-in text: filled, inpainted, or left"
    )


class Preparation(PixelsConfig):
    """How images become network input; written into packs and bundles, which refuse any other."""

    size: int = Field(ge=16, le=2048, description="Side of the square image, in pixels")
    version: Literal[1] = Field(1, description="Version of the preparing code")
