"""Configuration of evaluation, robustness checks and explanation."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pedfrac.config.base import Fraction, Qualities, Section, Strengths, comma_separated

Views = Literal["one", "mirrored"]
CalibrationMethod = Literal["logistic", "temperature", "beta", "isotonic", "none"]
Intended = Literal["initial examinations", "all examinations"]


class CalibrationConfig(Section):
    """How validation images teach probabilities to mean what they say."""

    method: CalibrationMethod = Field(
        "logistic",
        description="Map of probabilities, fitted on validation images; logistic is temperature "
        "with an intercept, which undoes the class balance that training has taught",
    )
    shrinkage: float = Field(
        50, ge=0, description="Patients at whom an age group's own map weighs as the pooled one"
    )


class AbstentionConfig(Section):
    """Which images are called neither fractured nor normal, but left to a reader."""

    rule: Literal["none", "predictive values", "coverage"] = Field(
        "none", description="Rule that sets the band of scores on validation images"
    )
    ppv: Fraction = Field(
        0.95, description="With 'predictive values': share of images called fractured that are"
    )
    npv: Fraction = Field(
        0.95, description="With 'predictive values': share of images called normal that are"
    )
    confidence: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="With 'predictive values': one-sided confidence, over patients, that a target "
        "is reached; 0: by the point estimate",
    )
    coverage: Fraction = Field(0.8, description="With 'coverage': share of images that are called")


class IntervalConfig(Section):
    """How intervals over patients are made."""

    resamples: int = Field(
        1000,
        ge=0,
        description="Bootstrap resamples of patients, for bands of curves and calibration errors",
    )
    seed: int = Field(0, ge=0, description="Seed of the bootstrap")


class ScoringConfig(IntervalConfig):
    """What is fitted on validation images and ships in the bundle: networks, maps, thresholds."""

    intended: Intended = Field(
        "initial examinations",
        description="Which examinations thresholds, probabilities and headline metrics are for: "
        "follow-ups show known fractures, most of them in a cast, and are easier",
    )
    threshold: Literal["sensitivity", "youden", "fixed"] = Field(
        "sensitivity", description="Rule that sets the threshold on validation images"
    )
    sensitivity: Fraction = Field(0.95, description="With 'sensitivity': the target")
    confidence: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="With 'sensitivity': one-sided confidence, over patients, that the target is "
        "reached; 0: by the point estimate",
    )
    fixed: Fraction = Field(0.5, description="With 'fixed': the threshold")
    threshold_shrinkage: float = Field(
        50, ge=0, description="Patients at whom an age group's own threshold weighs as the pooled"
    )
    selection_margin: Fraction = Field(
        0.01, description="AUROC by which a specialist must be shown not to be worse"
    )
    selection_patients: int = Field(
        10, ge=2, description="Patients with fractured, and with normal images, to choose by"
    )
    views: Views = Field(
        "one", description="Images as they are, or means over each image and its mirror image"
    )
    abstention: AbstentionConfig = Field(default_factory=AbstentionConfig, description="Abstention")
    calibration: CalibrationConfig = Field(
        default_factory=CalibrationConfig, description="Calibration"
    )
    study_score: Literal["max", "mean", "noisy-or"] = Field(
        "max", description="How the images of a study make its probability of a fracture"
    )


class EvaluationConfig(ScoringConfig):
    """How the metrics are computed."""

    age_doubt: Fraction = Field(
        0.05, description="Images are listed whose recorded age group is less probable than this"
    )
    subgroup_patients: int = Field(
        10,
        ge=2,
        description="Patients in a subgroup, of each kind needed, to compare it with others",
    )
    calibration_bins: int = Field(
        10, ge=2, description="Bins of the reliability curve, of equally many images"
    )


MapMethod = Literal["gradcam", "hirescam", "gradcam++"]


class RobustnessConfig(Section):
    """How images are disturbed to see what the metrics withstand, and shortcuts looked for."""

    images: int = Field(
        500, ge=0, description="Most images that are disturbed, of whole patients; 0: none"
    )
    rotation: Strengths = Field((5, 15), description="Degrees, either way")
    brightness: Strengths = Field(
        (0.2, 0.4), description="Share by which images are brighter or darker"
    )
    noise: Strengths = Field((0.02, 0.05), description="Standard deviation, share of full scale")
    blur: Strengths = Field((1, 2), description="Standard deviation of the blur, in pixels")
    resolution: Strengths = Field((2, 4), description="Factor by which the resolution is lower")
    jpeg: Qualities = Field((50, 20), description="Quality of JPEG, of 100")
    turn: float = Field(
        5, gt=0, le=45, description="Test-time augmentation: degrees of the turned images"
    )
    seed: int = Field(0, ge=0, description="Seed of the choice of images, of signs and of noise")


class ExplanationConfig(Section):
    """Which heat maps are made, of how many images, and how they are checked."""

    method: MapMethod = Field("gradcam", description="Method of the heat maps")
    compared: Annotated[tuple[MapMethod, ...], BeforeValidator(comma_separated)] = Field(
        (), description="Further methods that are measured, not drawn"
    )
    images_per_group: int = Field(
        24, ge=1, description="Most pictures written per age group (metrics use all test images)"
    )
    marked: float = Field(
        0.5, gt=0, le=1, description="Share of its maximum from which a map counts as marked"
    )
    checked_images: int = Field(
        16,
        ge=0,
        description="Images per age group, each of another patient, on which maps are checked by "
        "random weights and for faithfulness; 0: no checks",
    )
    faithfulness: Literal["none", "road"] = Field(
        "none",
        description="Does the probability follow the heat as pixels are removed (ROAD)",
    )
