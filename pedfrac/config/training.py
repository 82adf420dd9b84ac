"""Configuration of networks and their training."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from pedfrac.config.base import Fraction, NoneOrCount, NoneOrNumber, Section, comma_separated

Precision = Literal["auto", "fp32", "tf32", "bf16"]
"""Arithmetic; tf32 is fp32 whose products a GPU rounds, and the same as fp32 on a CPU."""


_SET_ELSEWHERE = {
    "num_classes": "the head sets it (age.head, and two classes for fractures)",
    "in_chans": "images have one grey channel",
    "img_size": "set size instead",
    "pretrained": "set weights instead",
    "checkpoint_path": "set weights instead",
    "pretrained_cfg": "set backbone and weights instead",
    "pretrained_cfg_overlay": "set backbone and weights instead",
    "model_name": "set backbone instead",
    "features_only": "a classifier is needed",
    "scriptable": "training compiles by itself (runtime.compile)",
    "exportable": "pedfrac export makes ONNX of any network",
}
"""Options of timm.create_model that this project sets: given as options they would overrule it."""


class ModelConfig(Section):
    """A timm network and where its weights come from."""

    backbone: str = Field(description="Name of a timm model")
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="Options for timm.create_model, such as drop_path_rate"
    )
    weights: str = Field(
        "hub", description="'hub' (timm's pretrained weights), 'none', or a local weights file"
    )
    size: int = Field(ge=16, le=2048, description="Side of the square input, in pixels")

    @field_validator("options")
    @classmethod
    def _options_overrule_nothing(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options.keys() & _SET_ELSEWHERE.keys():
            raise ValueError(f"{name} is not an option: {_SET_ELSEWHERE[name]}")
        return options


class AugmentConfig(Section):
    """Random changes to each training image; strengths are the largest change either way."""

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

    epochs: int = Field(30, ge=1, description="Passes over the training images")
    batch_size: int = Field(32, ge=1, description="Images per step, on all devices together")
    accumulation: int = Field(1, ge=1, description="Steps whose gradients add up to one update")
    learning_rate: float = Field(3e-4, gt=0, description="Peak learning rate of AdamW")
    weight_decay: float = Field(0.05, ge=0, description="Weight decay of AdamW")
    warmup_epochs: float = Field(2, ge=0, description="Epochs of linear warm-up before the cosine")
    clip_norm: NoneOrNumber = Field(1.0, gt=0, description="Largest gradient norm; none: no limit")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="Decay of the weight average; 0: off")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Label smoothing")
    patience: int = Field(10, ge=1, description="Epochs without a better metric before stopping")
    monitor: Literal["auroc", "f1", "accuracy", "loss"] = Field(
        "auroc", description="Validation metric that chooses the best epoch"
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
        "f1", description="Validation metric that chooses the best epoch"
    )


FindingClass = Literal[
    "boneanomaly",
    "bonelesion",
    "foreignbody",
    "fracture",
    "metal",
    "periostealreaction",
    "pronatorsign",
    "softtissue",
    "text",
]
"""Classes of boxes, as the published labels name them, in the order of their numbers."""


def _class_names(value: object) -> object:
    if value in ("none", "all"):
        return () if value == "none" else get_args(FindingClass)
    return comma_separated(value)


class MapShape(Section):
    """The finding maps of a network: all that is needed to build them again."""

    classes: tuple[FindingClass, ...] = Field(min_length=1, description="One map each")
    stride: Literal[8, 16] = Field(16, description="Pixels of the image per cell of a map")
    pooled: bool = Field(False, description="Whether the fracture map adds to the image's logit")


class MapsConfig(Section):
    """Finding maps: boxes teach the fracture networks where findings are.

    Off by default: on planted lesions they cost tiny networks accuracy, and on real images the
    gain is not measured yet. Without boxes in the data networks learn from the labels alone.
    """

    classes: Annotated[tuple[FindingClass, ...], BeforeValidator(_class_names)] = Field(
        (),
        description="Classes of boxes that have a map where the data hold enough, or all; none: no "
        "maps",
    )
    least_images: int = Field(
        50, ge=1, description="Training images with a box of a class, below which it has no map"
    )
    weight: float = Field(1.0, ge=0, description="Weight of the maps' loss beside the image's")
    positive_weight: float = Field(
        4.0, gt=0, description="Weight of cells with a finding in the maps' loss"
    )
    stride: Literal[8, 16] = Field(16, description="Pixels of the image per cell of a map")
    pooled: bool = Field(False, description="Add the fracture map's evidence to the image's logit")

    def shape(self, classes: Sequence[str]) -> MapShape | None:
        """Return the maps of the classes that the data hold; None where there are none."""
        kept = {"stride": self.stride, "pooled": self.pooled and "fracture" in classes}
        return MapShape.model_validate({"classes": classes} | kept) if classes else None


class FractureConfig(Section):
    """The fracture classifiers: one generalist and one specialist per age group."""

    model: FractureModelConfig = Field(
        default_factory=FractureModelConfig, description="Network of generalist and specialists"
    )
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="Training")
    maps: MapsConfig = Field(default_factory=MapsConfig, description="Finding maps")
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
    """The classifier that estimates the age group from the image."""

    head: HeadKind = Field(
        "classes",
        description="What it learns: the age groups, whether the image is older than each of many "
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
