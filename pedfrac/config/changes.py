"""What a person usually changes in a retraining, as a short form beside all its settings."""

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import Field, field_validator

from pedfrac.config.base import Numbers, Section
from pedfrac.config.loading import changed_config
from pedfrac.config.retrain import RetrainConfig

FIELDS = {
    "data": "data.root",
    "age_bounds": "cohort.age_bounds",
    "backbone": "fracture.model.backbone",
    "size": "fracture.model.size",
    "epochs": "fracture.training.epochs",
    "batch_size": "fracture.training.batch_size",
    "age_backbone": "age.model.backbone",
    "age_epochs": "age.training.epochs",
    "devices": "runtime.devices",
    "promotion": "promotion.after_retraining",
}


class Changes(Section):
    """What differs from the settings; a field that is left empty is as they say."""

    data: str | None = Field(None, description="Data set: folder or s3://bucket/prefix")
    age_bounds: Numbers | None = Field(None, description="Age bounds in years")
    backbone: str | None = Field(None, description="timm model of the fracture networks")
    size: int | None = Field(None, ge=16, le=2048, description="Side of their input, in pixels")
    epochs: int | None = Field(None, ge=1, description="Epochs of the fracture networks")
    batch_size: int | None = Field(None, ge=1, description="Images per step")
    age_backbone: str | None = Field(None, description="timm model of the age classifier")
    age_epochs: int | None = Field(None, ge=1, description="Epochs of the age classifier")
    devices: str | None = Field(None, description="Devices of one training: one, all or a number")
    promotion: bool | None = Field(None, description="Begin a promotion at the end")
    more: str = Field(
        "", description="Anything else, as YAML, such as a search's best configuration"
    )

    @field_validator("more")
    @classmethod
    def _is_yaml(cls, value: str) -> str:
        try:
            tree = yaml.safe_load(value) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"is not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(tree, dict):
            raise ValueError("must hold fields, such as 'cohort: {exclude_cast: true}'")
        return value

    def applied(self, config: RetrainConfig) -> RetrainConfig:
        """Return the settings with the changes; the fields count before ``more``.

        Raises PedfracError that names the field, the value and what is allowed.
        """
        values = _dotted(yaml.safe_load(self.more) or {})
        given = {name: getattr(self, name) for name in FIELDS}
        values |= {FIELDS[name]: value for name, value in given.items() if value is not None}
        return changed_config(config, values) if values else config


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in tree.items():
        nested = isinstance(value, Mapping) and value
        found |= _dotted(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found
