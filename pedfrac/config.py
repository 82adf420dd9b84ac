"""Configuration of every step: frozen models whose fields are the form in the Prefect UI.

Not here: credentials (they come from the environment) and anything that a run computes.
"""

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pedfrac.ages import AgeGroups
from pedfrac.errors import PedfracError
from pedfrac.storage import is_remote


def _comma_separated(value: object) -> object:
    """Let a flag such as ``0,6,12,19`` or ``1`` stand for a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, int | float) else value


def _word(value: object) -> object:
    """Undo what YAML makes of the bare words ``on`` and ``off``."""
    return ("on" if value else "off") if isinstance(value, bool) else value


def _none(value: object) -> object:
    """Let the word that the descriptions use stand for no value."""
    return None if value == "none" else value


NoneOrCount = Annotated[int | None, BeforeValidator(_none)]
NoneOrNumber = Annotated[float | None, BeforeValidator(_none)]
Numbers = Annotated[tuple[float, ...], BeforeValidator(_comma_separated)]
Projections = Annotated[
    tuple[Annotated[int, Field(ge=1, le=3)], ...], BeforeValidator(_comma_separated)
]
Strengths = Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(_comma_separated)]
Qualities = Annotated[
    tuple[Annotated[int, Field(ge=1, le=100)], ...], BeforeValidator(_comma_separated)
]
Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["auto", "fp32", "tf32", "bf16"]
"""Arithmetic; tf32 is fp32 whose products a GPU rounds, and the same as fp32 on a CPU."""
Read = TypeVar("Read", bound=BaseModel)


def _keep_order(schema: dict[str, Any]) -> None:
    """Number the fields: a database may return them in another order, and the form with them."""
    for position, field in enumerate(schema.get("properties", {}).values()):
        field["position"] = position


class Section(BaseModel):
    """Base of all configuration: immutable, and a field that nobody reads is an error."""

    # a name may look like a number, which YAML makes of it
    model_config = ConfigDict(
        frozen=True, extra="forbid", coerce_numbers_to_str=True, json_schema_extra=_keep_order
    )


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


class CohortConfig(Section):
    """Which films take part, and where the age groups are cut."""

    age_bounds: Numbers = Field(
        (0, 1.5, 5, 10, 15, 19),
        min_length=2,
        description="Age bounds in years; each group is right-open, the last bound is inclusive",
    )
    exclude_metal: bool = Field(True, description="Leave out films with metal")
    exclude_uncertain: bool = Field(False, description="Leave out films with uncertain diagnosis")
    exclude_cast: bool = Field(False, description="Leave out films with a cast")
    exclude_osteopenia: bool = Field(False, description="Leave out films with osteopenia")
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


class SplitConfig(Section):
    """How patients are divided into test, training and validation."""

    file: str | None = Field(
        None, description="CSV of filestem,split (train, valid, test) made elsewhere; else by rule"
    )
    test_per_year: int = Field(
        10, ge=1, description="Test set: up to so many fractured and normal films per year of age"
    )
    test_images_per_patient: int = Field(
        1, ge=1, description="Test set: at most so many films of one patient"
    )
    validation_fraction: float = Field(
        0.15, gt=0, lt=1, description="Share of the other patients that validate"
    )
    folds: NoneOrCount = Field(
        None,
        ge=2,
        description="Cut the patients into so many folds; without a fold, each is held out in turn "
        "from networks of its own, for pooled figures beside those of the test set",
    )
    fold: NoneOrCount = Field(
        None, ge=0, description="With folds: only this one counts, and validates; none: all"
    )
    balance_training: bool = Field(
        False, description="Keep as many fractured as normal training films in each year of age"
    )
    previous: str = Field(
        "latest",
        description="Earlier split whose patients keep their place: 'latest' in the artifact "
        "store for the same data and rules, a split.csv, or 'none'",
    )
    seed: int = Field(0, ge=0, description="Seed of every draw")

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
        """How many folds are held out in turn; 0: none."""
        return self.folds or 0 if self.fold is None else 0

    @property
    def of_the_bundle(self) -> Self:
        """The split of the networks that go into the bundle: folds held out in turn are no part."""
        return self.model_copy(update={"folds": None}) if self.held_out else self


class PixelsConfig(Section):
    """What is done to the pixels before anything else sees them."""

    markers: Annotated[Literal["fill", "inpaint", "off"], BeforeValidator(_word)] = Field(
        "fill", description="Side markers and burnt-in text: filled, inpainted, or left"
    )


class Preparation(PixelsConfig):
    """How films become network input; written into packs and bundles, which refuse any other."""

    size: int = Field(ge=16, le=2048, description="Side of the square film, in pixels")
    version: Literal[1] = Field(1, description="Version of the preparing code")


class ModelConfig(Section):
    """A timm network and where its weights come from."""

    backbone: str = Field(description="Name of a timm model")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options for timm.create_model, such as drop_path_rate"
    )
    weights: str = Field(
        "hub", description="'hub' (timm's pretrained weights), 'none', or a local weights file"
    )
    size: int = Field(ge=16, le=2048, description="Side of the square input, in pixels")


class AugmentConfig(Section):
    """Random changes to each training film; strengths are the largest change either way."""

    rotation: float = Field(15, ge=0, le=180, description="Rotation in degrees")
    shift: Fraction = Field(0.06, description="Shift as a share of the side")
    scale: float = Field(0.12, ge=0, lt=1, description="Zoom as a share of the size")
    flip: Fraction = Field(0.5, description="Probability of a left-right flip")
    brightness: Fraction = Field(0.15, description="Brightness as a share of the range")
    contrast: float = Field(0.2, ge=0, lt=1, description="Contrast factor")
    gamma: float = Field(0.2, ge=0, lt=1, description="Gamma exponent")
    noise: Fraction = Field(0.02, description="Largest standard deviation of Gaussian noise")
    erasing: Fraction = Field(0.2, description="Probability that one rectangle is erased")


class TrainingConfig(Section):
    """One training run; the same engine serves age classifier, generalist and specialists."""

    epochs: int = Field(30, ge=1, description="Passes over the training films")
    batch_size: int = Field(32, ge=1, description="Films per step, on all devices together")
    accumulation: int = Field(1, ge=1, description="Steps whose gradients add up to one update")
    learning_rate: float = Field(3e-4, gt=0, description="Peak learning rate of AdamW")
    weight_decay: float = Field(0.05, ge=0, description="Weight decay of AdamW")
    warmup_epochs: float = Field(2, ge=0, description="Epochs of linear warm-up before the cosine")
    clip_norm: NoneOrNumber = Field(1.0, gt=0, description="Largest gradient norm; none: no limit")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="Decay of the weight average; 0: off")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Label smoothing")
    patience: int = Field(10, ge=1, description="Epochs without a better figure before stopping")
    monitor: Literal["auroc", "f1", "accuracy", "loss"] = Field(
        "auroc", description="Validation figure that chooses the best epoch"
    )
    imbalance: Literal["sampler", "focal", "weighted", "none"] = Field(
        "sampler", description="The one correction of class imbalance"
    )
    focal_gamma: float = Field(2.0, ge=0, description="With 'focal': focusing exponent")
    precision: Precision = Field(
        "auto",
        description="Arithmetic of the step; auto: bf16 on a GPU that has it and, for networks "
        "that gain by it, on a processor that has it",
    )
    augment: AugmentConfig = Field(default_factory=AugmentConfig, description="Augmentation")
    seed: int = Field(0, ge=0, description="Seed of initial weights, order and augmentation")


class SpecialistConfig(Section):
    """In what the training of the age groups differs from the generalist's."""

    start: Literal["generalist", "fresh"] = Field(
        "generalist", description="Start from the generalist's weights, or from the backbone's"
    )
    epochs: NoneOrCount = Field(None, ge=1, description="Epochs; none: as the generalist")
    learning_rate: NoneOrNumber = Field(
        None, gt=0, description="Peak learning rate; none: as the generalist"
    )


class FractureModelConfig(ModelConfig):
    """The network of generalist and specialists."""

    backbone: str = Field("convnextv2_tiny", description="Name of a timm model")
    size: int = Field(384, ge=16, le=2048, description="Side of the square input, in pixels")


class AgeModelConfig(ModelConfig):
    """The network of the age classifier."""

    backbone: str = Field("swin_tiny_patch4_window7_224", description="Name of a timm model")
    size: int = Field(224, ge=16, le=2048, description="Side of the square input, in pixels")


class AgeTrainingConfig(TrainingConfig):
    """Training of the age classifier, whose several classes F1 sums up best."""

    monitor: Literal["auroc", "f1", "accuracy", "loss"] = Field(
        "f1", description="Validation figure that chooses the best epoch"
    )


class FractureConfig(Section):
    """The fracture classifiers: one generalist and one specialist per age group."""

    model: FractureModelConfig = Field(
        default_factory=FractureModelConfig, description="Network of generalist and specialists"
    )
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="Training")
    specialist: SpecialistConfig = Field(
        default_factory=SpecialistConfig, description="What differs for the specialists"
    )

    @property
    def specialist_training(self) -> TrainingConfig:
        """The training of a specialist: the generalist's with the specialist's own values."""
        own = self.specialist.model_dump(include={"epochs", "learning_rate"}, exclude_none=True)
        return self.training.model_copy(update=own)


HeadKind = Literal["classes", "ordinal", "regression"]


class AgeConfig(Section):
    """The classifier that tells the age group from the film."""

    head: HeadKind = Field(
        "classes",
        description="What it learns: the age groups, whether the film is older than each of many "
        "ages (ordinal), or the age in years; the latter two also estimate the age",
    )
    model: AgeModelConfig = Field(
        default_factory=AgeModelConfig, description="Network of the age classifier"
    )
    training: AgeTrainingConfig = Field(default_factory=AgeTrainingConfig, description="Training")

    @model_validator(mode="after")
    def _loss_fits_head(self) -> Self:
        if self.head == "classes":
            return self
        if self.training.imbalance == "focal":
            raise ValueError(f"imbalance focal is of head classes; with {self.head} take another")
        if self.training.label_smoothing:
            raise ValueError(f"label_smoothing is of head classes; with {self.head} set it to 0")
        return self


Views = Literal["one", "mirrored"]
Runtime = Literal["torch", "onnx"]
CalibrationMethod = Literal["temperature", "beta", "isotonic", "none"]


class CalibrationConfig(Section):
    """How validation films teach probabilities to mean what they say."""

    method: CalibrationMethod = Field(
        "temperature", description="Map of probabilities, fitted on validation films"
    )
    shrinkage: float = Field(
        50, ge=0, description="Patients at whom an age group's own map weighs as the pooled one"
    )
    bins: int = Field(10, ge=2, description="Bins of the reliability curve, of equally many films")


class AbstentionConfig(Section):
    """Which films are called neither fractured nor normal, but left to a reader."""

    rule: Literal["none", "predictive values", "coverage"] = Field(
        "none", description="Rule that sets the band of scores on validation films"
    )
    ppv: Fraction = Field(
        0.95, description="With 'predictive values': of films called fractured, so many are"
    )
    npv: Fraction = Field(
        0.95, description="With 'predictive values': of films called normal, so many are"
    )
    coverage: Fraction = Field(0.8, description="With 'coverage': share of films that are called")


class EvaluationConfig(Section):
    """How the figures are computed."""

    threshold: Literal["youden", "sensitivity", "fixed"] = Field(
        "youden", description="Rule that sets the threshold on validation films"
    )
    sensitivity: Fraction = Field(0.95, description="With 'sensitivity': the target")
    fixed: Fraction = Field(0.5, description="With 'fixed': the threshold")
    threshold_shrinkage: float = Field(
        50, ge=0, description="Patients at whom an age group's own threshold weighs as the pooled"
    )
    selection_margin: Fraction = Field(
        0.01, description="AUROC by which a specialist must be shown not to be worse"
    )
    selection_patients: int = Field(
        10, ge=2, description="Patients with fractured, and with normal films, to choose by"
    )
    age_doubt: Fraction = Field(
        0.05, description="Films are listed whose recorded age group is less probable than this"
    )
    subgroup_patients: int = Field(
        10,
        ge=2,
        description="Patients in a subgroup, of each kind needed, to compare it with others",
    )
    views: Views = Field(
        "one", description="Films as they are, or means over each film and its mirror image"
    )
    abstention: AbstentionConfig = Field(default_factory=AbstentionConfig, description="Abstention")
    calibration: CalibrationConfig = Field(
        default_factory=CalibrationConfig, description="Calibration"
    )
    study_score: Literal["max", "mean", "noisy-or"] = Field(
        "max", description="How the films of a study make its probability of a fracture"
    )
    interval: Literal["jackknife", "bca", "percentile"] = Field(
        "jackknife",
        description="Bounds: jackknife over patients with Student's t on the logit scale (covers "
        "best), or bootstrap over patients: bca, percentile",
    )
    resamples: int = Field(1000, ge=0, description="Bootstrap resamples of patients per figure")
    seed: int = Field(0, ge=0, description="Seed of the bootstrap")


MapMethod = Literal["gradcam", "hirescam", "gradcam++"]


class RobustnessConfig(Section):
    """How films are disturbed to see what the figures withstand, and shortcuts looked for."""

    films: int = Field(
        500, ge=0, description="Most films that are disturbed, of whole patients; 0: none"
    )
    rotation: Strengths = Field((5, 15), description="Degrees, either way")
    brightness: Strengths = Field(
        (0.2, 0.4), description="Share by which films are brighter or darker"
    )
    noise: Strengths = Field((0.02, 0.05), description="Standard deviation, share of full scale")
    blur: Strengths = Field((1, 2), description="Standard deviation of the blur, in pixels")
    resolution: Strengths = Field((2, 4), description="Factor by which the resolution is lower")
    jpeg: Qualities = Field((50, 20), description="Quality of JPEG, of 100")
    turn: float = Field(
        5, gt=0, le=45, description="Test-time augmentation: degrees of the turned films"
    )
    seed: int = Field(0, ge=0, description="Seed of the choice of films, of signs and of noise")


class ExplanationConfig(Section):
    """Which heat maps are made, of how many films, and how they are checked."""

    method: MapMethod = Field("gradcam", description="Method of the heat maps")
    compared: Annotated[tuple[MapMethod, ...], BeforeValidator(_comma_separated)] = Field(
        (), description="Further methods that are measured, not drawn"
    )
    films_per_group: int = Field(
        24, ge=1, description="Most pictures written per age group (figures use all test films)"
    )
    marked: float = Field(
        0.5, gt=0, le=1, description="Share of its maximum from which a map counts as marked"
    )
    checked_films: int = Field(
        16,
        ge=0,
        description="Films per age group, each of another patient, on which maps are checked by "
        "random weights and for faithfulness; 0: no checks",
    )
    faithfulness: Literal["none", "insertion_deletion"] = Field(
        "none", description="Does the probability follow the heat as it is put in or taken out"
    )


DEFAULT_MODEL = "pedfrac"


class TrackingConfig(Section):
    """Where MLflow keeps the runs, and the models that came of them."""

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


class RuntimeConfig(Section):
    """The machine's share; nothing here changes a result, so nothing here is part of a key."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    devices: str = Field(
        "one",
        pattern="^(one|all|[1-9][0-9]*)$",
        description="Devices of one training: one, all (GPUs of the node), or a number of GPUs or, "
        "without a GPU, CPU processes",
    )
    workers: int = Field(0, ge=0, description="Processes that decode films; 0: one per core")
    dispatch: Literal["local", "deployments"] = Field(
        "local", description="Trainings run on this machine, or as deployments on the GPU pool"
    )
    parallel: int = Field(
        1, ge=1, description="With 'local': age groups trained at the same time, in processes"
    )
    micro_batch: NoneOrCount = Field(
        None,
        ge=1,
        description="Films of a batch that go through the network at once; none: all, or as many "
        "as a GPU's memory holds",
    )
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(_word)] = Field(
        "auto", description="Networks compiled for speed, after a minute or two; auto: on a GPU"
    )
    gradient_checkpointing: bool = Field(
        False, description="Less memory for about a third more time, for large networks"
    )
    attempts: int = Field(
        3, ge=1, description="With 'deployments': how often a training whose node dies is begun"
    )

    @model_validator(mode="after")
    def _devices_are_there(self) -> Self:
        if self.devices == "one":
            return self
        if ":" in self.device:
            raise ValueError(f"device {self.device} is one; choose it or devices {self.devices}")
        if self.device == "cpu" and self.devices == "all":
            raise ValueError("devices all is of GPUs; with device cpu give a number of processes")
        if self.parallel > 1:
            raise ValueError(
                f"choose either devices {self.devices} or parallel {self.parallel}: trainings at "
                "the same time would take the same devices"
            )
        return self


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
    """By how much a challenger may be worse than the champion on the same test films.

    Held where the lower bound of the paired difference is above minus the margin.
    """

    auroc: Fraction = Field(0.03, description="AUROC of all films")
    auroc_of_group: Fraction = Field(0.1, description="AUROC of an age group")
    sensitivity: Fraction = Field(0.08, description="Sensitivity on all films")
    specificity: Fraction = Field(0.08, description="Specificity on all films")


class FloorsConfig(Section):
    """What any model in use must reach; held where the lower bound is not below the floor."""

    sensitivity: Fraction = Field(0.8, description="Sensitivity on all test films")
    specificity: Fraction = Field(0.7, description="Specificity on all test films")
    sensitivity_no_cast: Fraction = Field(0.75, description="Sensitivity on films without a cast")
    specificity_no_cast: Fraction = Field(0.65, description="Specificity on films without a cast")
    sensitivity_initial: Fraction = Field(0.75, description="Sensitivity on initial exams")
    specificity_initial: Fraction = Field(0.65, description="Specificity on initial exams")


class GateConfig(Section):
    """What must hold before a challenger may replace the champion, set before any is trained."""

    margins: MarginsConfig = Field(default_factory=MarginsConfig, description="Not worse by")
    floors: FloorsConfig = Field(default_factory=FloorsConfig, description="Floors")
    patients: int = Field(
        10, ge=2, description="An age group counts from so many patients, with and without fracture"
    )
    test_films: Fraction = Field(
        0.95, description="Share of the champion's test films on which the challenger was tested"
    )
    changed_truth: Fraction = Field(
        0.02, description="Largest share of common test films whose label differs between the two"
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
    pointing_films: int = Field(
        10, ge=1, description="Heat maps of an age group count from so many films with boxes"
    )
    above_chance: bool = Field(
        True, description="Heat maps must not be shown to point at fractures less than by chance"
    )
    may_change: Annotated[tuple[Aspect, ...], BeforeValidator(_comma_separated)] = Field(
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
        "person", description="Who decides once the gate let a challenger through"
    )
    deadline_hours: float = Field(
        72, gt=0, description="Hours after which an undecided challenger is not promoted"
    )
    gate: GateConfig = Field(default_factory=GateConfig, description="Gate")


DEFAULT_ARTIFACTS, DEFAULT_RESULTS = "artifacts", "results"


class RetrainConfig(Section):
    """One whole retraining."""

    data: DataConfig = Field(description="Data set")
    artifacts: str = Field(
        DEFAULT_ARTIFACTS,
        description="Folder or s3://bucket/prefix that keeps all artifacts; left as it is, "
        "PEDFRAC_ARTIFACTS counts if it is set",
    )
    results: str = Field(
        DEFAULT_RESULTS,
        description="Folder for copies of report, pictures and bundle; empty: no copies",
    )
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

    def preparation(self, model: ModelConfig) -> Preparation:
        """Return how films are prepared for a model."""
        return Preparation(size=model.size, **self.pixels.model_dump())


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


class PhantomConfig(Section):
    """Synthetic films in the published layout."""

    images: int = Field(400, ge=1, description="Number of films")
    seed: int = Field(0, ge=0, description="Seed; the same seed gives the same bytes")
    scale: float = Field(1.0, ge=0.1, le=1, description="Linear size relative to real films")
    shortcut: bool = Field(False, description="Let the side marker tell the label")
    lesion: Literal["none", "by age", "shared"] = Field(
        "none",
        description="One of two lesions instead of fractures, in wrists drawn at one age: which of "
        "them is a fracture turns round at 10 years (by age), or is the same at all ages (shared)",
    )
    faults: int = Field(0, ge=0, description="Number of films of each planted fault")
    workers: int = Field(0, ge=0, description="Processes; 0: one per core")


class PredictionConfig(Section):
    """Scoring of films with a bundle."""

    films: tuple[str, ...] = Field(
        min_length=1, description="Films, folders, CSV tables (column file) or s3://bucket/prefix"
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
    artifacts: str = Field(DEFAULT_ARTIFACTS, description="The artifact store, where it is needed")
    batch_size: int = Field(32, ge=1, description="Films that are read and scored together")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    runtime: Runtime = Field("torch", description="onnx for a bundle that was exported")

    @model_validator(mode="after")
    def _dicom_needs_a_table(self) -> Self:
        if self.dicom_out and not self.output:
            raise ValueError("dicom_out needs output: the table says which file is whose")
        return self


MOST_TESTS = 20  # of one window, whose p values are corrected for their number


class MonitorConfig(Section):
    """Comparison of films that were scored at work with those that made the bundle."""

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
    since: str | None = Field(None, description="Only films scored from this date or time on")
    until: str | None = Field(None, description="Only films scored before this date or time")
    last_days: NoneOrNumber = Field(
        None, gt=0, description="Only films scored in so many days before now"
    )
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
    fewest_films: int = Field(50, ge=10, description="Films that a window needs to be compared")
    most_films: int = Field(
        2000, ge=100, description="Films of a larger window that are compared, of whole patients"
    )
    draws: int = Field(4999, ge=99, description="Random draws behind each p value")
    output: str = Field("drift", description="Folder for copies of page and figures; empty: none")
    artifacts: str = Field(DEFAULT_ARTIFACTS, description="The artifact store that keeps them")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="Tracking")
    seed: int = Field(0, ge=0, description="Seed of the draws")

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.since and self.last_days is not None:
            raise ValueError("choose either since or last_days, not both")
        if self.draws * self.false_alarm_rate < MOST_TESTS:
            least = math.ceil(MOST_TESTS / self.false_alarm_rate)
            raise ValueError(
                f"draws {self.draws} are too few to tell a change at false_alarm_rate "
                f"{self.false_alarm_rate:g}; at least {least} are needed"
            )
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


def artifact_root(configured: str = DEFAULT_ARTIFACTS) -> str:
    """Return the root as configured; where that is the default, PEDFRAC_ARTIFACTS if it is set."""
    if configured == DEFAULT_ARTIFACTS:
        return os.environ.get("PEDFRAC_ARTIFACTS") or configured
    return configured


class Range(Section):
    """Values that a search may give one field: from low to high, or one of some choices."""

    low: float | None = Field(None, description="Least value")
    high: float | None = Field(None, description="Greatest value")
    log: bool = Field(False, description="Draw on a logarithmic scale")
    whole: bool = Field(False, description="Whole numbers only")
    choices: tuple[str | float | bool, ...] = Field((), description="Instead: the values allowed")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        bounded = self.low is not None and self.high is not None
        if bounded == bool(self.choices):
            raise ValueError("give either low and high, or choices")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError(f"low {self.low:g} must be above 0 on a logarithmic scale")
        return self


class SearchConfig(Section):
    """A search for better training settings, judged by validation films alone."""

    name: str = Field("search", min_length=1, description="Name; the same goes on where it stopped")
    model: str = Field(
        "generalist", description="What is trained: generalist, age, or the name of an age group"
    )
    space: dict[str, Range] = Field(
        default={
            "fracture.training.learning_rate": Range(low=3e-5, high=1e-3, log=True),
            "fracture.training.weight_decay": Range(low=0.005, high=0.2, log=True),
        },
        min_length=1,
        description="Fields of fracture.training, fracture.specialist or age.training, each with "
        "low and high (and log, whole), or choices",
    )
    trials: int = Field(20, ge=1, description="Trainings, at most")
    gpu_hours: NoneOrNumber = Field(
        None, gt=0, description="No further training begins once so many GPU hours were spent"
    )
    parallel: int = Field(
        1,
        ge=1,
        description="With dispatch 'deployments': trainings at the same time (here, runtime's)",
    )
    pruning: bool = Field(True, description="Stop trainings that fall behind the median of others")
    pruning_after: int = Field(
        5, ge=1, description="Finished trainings before any is stopped, to know the median"
    )
    pruning_epochs: int = Field(3, ge=1, description="Epochs that every training gets")
    seed: int = Field(0, ge=0, description="Seed of the sampler")

    @model_validator(mode="after")
    def _only_training(self) -> Self:
        parts = ("fracture.training", "fracture.specialist", "age.training")
        below = ("fracture.training.augment", "age.training.augment")
        for name in self.space:
            part, _, field = name.rpartition(".")
            if part not in (*parts, *below) or field in ("monitor", "seed"):
                raise ValueError(
                    f"space: {name} cannot be searched; allowed are fields of {', '.join(parts)} "
                    "but for monitor and seed, by which trainings are compared"
                )
        return self


def load_search(path: str | None) -> SearchConfig:
    """Read a search from YAML; none: the default. Raises PedfracError as ``load_config`` does."""
    return validated(SearchConfig, _read_yaml(Path(path)) if path else {}, path)


def changed_config(config: RetrainConfig, values: Mapping[str, object]) -> RetrainConfig:
    """Return a configuration with other values at dotted names.

    Raises PedfracError that names the field, the value and what is allowed.
    """
    tree = config.model_dump(mode="json")
    for name, value in values.items():
        _put(tree, name, value)
    return validated(RetrainConfig, tree)


def to_yaml(config: RetrainConfig) -> str:
    """Return a configuration as YAML, without what is as by default."""
    return yaml.safe_dump(
        config.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True
    )


def tracking_folder(artifacts: str, results: str = DEFAULT_RESULTS) -> Path:
    """Return where SQLite lies: beside the artifacts, or in the results where those are on S3."""
    return Path((results or ".") if is_remote(artifacts) else artifacts)


def load_config(path: str | None, overrides: list[str]) -> RetrainConfig:
    """Read a retraining's configuration from YAML and ``key.sub=value`` overrides, the latter last.

    Raises PedfracError that names the file or flag, the field, the value found and what is allowed.
    """
    tree = _read_yaml(Path(path)) if path else {}
    for override in overrides:
        _set(tree, override)
    tree.setdefault("data", {})  # so that its field is named where nothing is given
    return validated(RetrainConfig, tree, path)


def load_promotion(path: str | None, overrides: list[str]) -> PromoteConfig:
    """Read a promotion's configuration, from the YAML file of a retraining or one of its own.

    Of a retraining's sections those that a promotion knows count. Raises PedfracError as
    ``load_config`` does.
    """
    tree = _read_yaml(Path(path)) if path else {}
    of_retraining = RetrainConfig.model_fields.keys() - PromoteConfig.model_fields.keys()
    tree = {name: value for name, value in tree.items() if name not in of_retraining}
    for override in overrides:
        _set(tree, override)
    return validated(PromoteConfig, tree, path)


def validated(model: type[Read], tree: Mapping[str, Any], path: str | None = None) -> Read:
    """Return the model of a tree of values; raise PedfracError that names path, field and value."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        faults = explain_invalid(error, model)
        raise PedfracError(f"{path or 'configuration'}: {faults}") from None


def explain_invalid(error: ValidationError, model: type[BaseModel]) -> str:
    """Return one line for all faults that a model found: field, what is allowed, value found."""
    return "; ".join(_explain(fault, model) for fault in error.errors())


def _explain(fault: Any, model: type[BaseModel]) -> str:
    name = ".".join(map(str, fault["loc"])) or "configuration"
    if fault["type"] not in ("missing", "extra_forbidden"):
        return f"{name}: {fault['msg']} (found {fault['input']!r})"
    *section, field = fault["loc"]
    fields = _section(model, section).model_fields
    if fault["type"] == "missing":
        described = fields[field].description
        return f"{name}: must be given" + (f" ({described})" if described else "")
    near = difflib.get_close_matches(str(field), fields)
    hint = f"near it: {', '.join(near)}" if near else f"allowed are {', '.join(fields)}"
    return f"{name}: there is no such field (found {fault['input']!r}); {hint}"


def _section(model: type[BaseModel], names: Sequence[Any]) -> type[BaseModel]:
    """Return the model of the section that names lead to, through lists and mappings too."""
    found: Any = model
    for name in names:
        if isinstance(found, type) and issubclass(found, BaseModel):
            found = found.model_fields[name].annotation
        else:
            found = get_args(found)[-1]  # what a list or a mapping holds
        if isinstance(found, UnionType):
            found = next(kind for kind in get_args(found) if kind is not NoneType)
    return found


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise PedfracError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PedfracError(f"{path}: is not YAML ({_in_one_line(error)})") from None
    if not isinstance(tree, dict):
        raise PedfracError(f"{path}: must hold fields, found {type(tree).__name__}")
    return tree


def _set(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise PedfracError(f"--set {override}: must look like key.sub=value")
    try:
        _put(tree, name, yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise PedfracError(f"--set {override}: is not YAML ({_in_one_line(error)})") from None
    except _NoSection as error:
        raise PedfracError(f"--set {override}: {error} is a value and has no fields") from None


class _NoSection(Exception):
    """A name that leads on where there is a value."""


def _put(tree: dict[str, Any], name: str, value: object) -> None:
    *branches, leaf = name.split(".")
    for branch in branches:
        tree = tree.setdefault(branch, {})
        if not isinstance(tree, dict):
            raise _NoSection(branch)
    tree[leaf] = value


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
