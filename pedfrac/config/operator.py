"""The operator's file: a YAML, named by PEDFRAC_CONFIG, of what differs from what is shipped.

It is read when deployments are made, and by the gate when it judges. Not here: how it is merged
with the shipped deployments (flows.infrastructure.deployments).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from pedfrac.config.base import Section
from pedfrac.config.loading import explain_invalid, read_yaml, validated
from pedfrac.config.promotion import PromotionConfig
from pedfrac.errors import PedfracError

VARIABLE = "PEDFRAC_CONFIG"
PLACEHOLDERS = ("BUCKET", "change-me")  # what examples have in place of names and secrets


class ScheduleChange(Section):
    """What differs in a schedule of a deployment; left out: as shipped."""

    cron: str | None = Field(None, description="When it runs, such as '0 2 * * 0'")
    interval: float | None = Field(None, gt=0, description="Or every so many seconds")
    timezone: str | None = Field(None, description="Such as Europe/Vienna")
    active: bool | None = Field(None, description="Whether it is on")


class DeploymentChange(Section):
    """What differs in one deployment."""

    parameters: dict[str, Any] = Field(default_factory=dict, description="Of the flow")
    schedules: dict[str, ScheduleChange] = Field(
        default_factory=dict, description="By the slug of the shipped schedule, or a new one"
    )
    job_variables: dict[str, Any] = Field(
        default_factory=dict, description="Of the pool's template, such as env or image"
    )


class OperatorConfig(Section):
    """All that an operator sets. Sections are partial: what is left out is as shipped."""

    retraining: dict[str, Any] = Field(
        default_factory=dict, description="Of every retraining and its steps, as in its YAML file"
    )
    prediction: dict[str, Any] = Field(
        default_factory=dict, description="Of predict and predict-watch: images, bundle, output"
    )
    monitoring: dict[str, Any] = Field(
        default_factory=dict, description="Of monitor: scores, bundle, last_days"
    )
    deployments: dict[str, DeploymentChange] = Field(
        default_factory=dict, description="By deployment, what differs from the sections above"
    )

    @field_validator("retraining")
    @classmethod
    def _promotion_is_valid(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            PromotionConfig.model_validate(value.get("promotion", {}))
        except ValidationError as error:
            raise ValueError(f"promotion.{explain_invalid(error, PromotionConfig)}") from None
        return value

    @property
    def promotion(self) -> PromotionConfig:
        """The rules of promotion that the operator set, or the shipped ones."""
        return PromotionConfig.model_validate(self.retraining.get("promotion", {}))


def operator_file() -> Path | None:
    """Return the file that PEDFRAC_CONFIG names, or None where there is none."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def load_operator(path: Path | None = None) -> OperatorConfig:
    """Read the operator's file, that of PEDFRAC_CONFIG by default; none: all as shipped.

    Raises PedfracError that names the file and the field, also for a placeholder of an example.
    """
    path = path or operator_file()
    if path is None:
        return OperatorConfig()
    tree = read_yaml(path)
    refuse_placeholders(tree, str(path))
    return validated(OperatorConfig, tree, str(path))


def refuse_placeholders(tree: Any, where: str) -> None:
    """Raise PedfracError that names each value which still holds a placeholder of an example."""
    found = [
        f"{name}: {value!r}"
        for name, value in leaves(tree).items()
        if isinstance(value, str) and any(one in value for one in PLACEHOLDERS)
    ]
    if found:
        raise PedfracError(
            f"{where}: {'; '.join(found)}: replace the placeholder by a value of your own"
        )


def refuse_example_secrets() -> None:
    """Raise PedfracError where a variable still holds the secret of an example, such as change-me.

    The message names the variables, never their values.
    """
    found = sorted(name for name, value in os.environ.items() if "change-me" in value)
    if found:
        raise PedfracError(
            f"{', '.join(found)}: holds the example secret 'change-me'; set a secret of your own "
            "(openssl rand -hex 24)"
        )


def leaves(tree: Any, name: str = "") -> dict[str, Any]:
    """Return all values of nested mappings by their dotted names; items of lists by number."""
    return dict(_leaves(tree, name))


def _leaves(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    below: Iterator[tuple[Any, Any]] | None = None
    if isinstance(tree, Mapping) and tree:
        below = iter(tree.items())
    elif isinstance(tree, Sequence) and not isinstance(tree, str) and tree:
        below = iter(enumerate(tree))
    if below is None:
        yield name, tree
        return
    for key, value in below:
        yield from _leaves(value, f"{name}.{key}" if name else str(key))
