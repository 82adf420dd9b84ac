"""How settings look in the form of Prefect's UI: one field of JSON, checked by the whole model.

The form draws a field for each property, two hundred in one list for a retraining. It draws a JSON
editor where an object has none; what a schema says under ``then`` it leaves to the server, which
refuses wrong values by their names before any run.
"""

from typing import Annotated, Any

from pydantic import BaseModel, WithJsonSchema

from pedfrac.config.retrain import RetrainConfig


def folded(model: type[BaseModel], title: str, description: str) -> WithJsonSchema:
    """Return what lets a model stand in a form as one field, and be validated as a whole."""
    whole = _without_references(model.model_json_schema())
    shown = {"type": "object", "title": title, "description": description}
    return WithJsonSchema(shown | {"if": {}, "then": whole})


def _without_references(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with each ``$ref`` replaced by what it names."""
    definitions = schema.get("$defs", {})

    def replaced(part: Any) -> Any:
        if isinstance(part, list):
            return [replaced(one) for one in part]
        if not isinstance(part, dict):
            return part
        rest = {name: replaced(value) for name, value in part.items() if name != "$ref"}
        if "$ref" in part:
            rest = replaced(definitions[part["$ref"].rpartition("/")[2]]) | rest
        return rest

    whole: dict[str, Any] = replaced({k: v for k, v in schema.items() if k != "$defs"})
    return whole


Settings = Annotated[
    RetrainConfig,
    folded(
        RetrainConfig,
        "All settings",
        "The same sections as in the YAML file of pedfrac retrain; what is left out is as by "
        "default. The fields below count before them",
    ),
]
