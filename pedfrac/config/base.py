"""Base of all configuration sections, and types that several share."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def comma_separated(value: object) -> object:
    """Let a flag such as ``0,6,12,19`` or ``1`` stand for a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, int | float) else value


def on_or_off(value: object) -> object:
    """Undo what YAML makes of the bare words ``on`` and ``off``."""
    return ("on" if value else "off") if isinstance(value, bool) else value


def none_from_word(value: object) -> object:
    """Let the word that the descriptions use stand for no value."""
    return None if value == "none" else value


NoneOrCount = Annotated[int | None, BeforeValidator(none_from_word)]
NoneOrNumber = Annotated[float | None, BeforeValidator(none_from_word)]
Numbers = Annotated[tuple[float, ...], BeforeValidator(comma_separated)]
Projections = Annotated[
    tuple[Annotated[int, Field(ge=1, le=3)], ...], BeforeValidator(comma_separated)
]
Strengths = Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(comma_separated)]
Qualities = Annotated[
    tuple[Annotated[int, Field(ge=1, le=100)], ...], BeforeValidator(comma_separated)
]
Part = TypeVar("Part", bound="Section")
Fraction = Annotated[float, Field(ge=0, le=1)]


def _keep_order(schema: dict[str, Any]) -> None:
    """Number the fields, what must be given first: a database may return them in another order."""
    fields, required = schema.get("properties", {}), schema.get("required", ())
    for position, name in enumerate(sorted(fields, key=lambda one: one not in required)):
        fields[name]["position"] = position


class Section(BaseModel):
    """Base of all configuration: immutable, and a field that nobody reads is an error.

    Defaults are validated like any input, so that a value is the same however it arrives; no number
    is infinite, which JSON could not carry.
    """

    # a name may look like a number, which YAML makes of it; NaN passes every bound
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        json_schema_extra=_keep_order,
    )

    def part(self, kind: type[Part]) -> Part:
        """Return the fields that a base of this section has: what a step needs, and no more."""
        return kind.model_validate({name: getattr(self, name) for name in kind.model_fields})
