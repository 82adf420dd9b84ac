"""Loading configuration from YAML and command-line overrides, with errors in one line."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pedfrac.config.promotion import PromoteConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.search import SearchConfig
from pedfrac.config.strict_yaml import RepeatedKey, load_yaml
from pedfrac.errors import PedfracError

Read = TypeVar("Read", bound=BaseModel)


def load_search(path: str | None) -> SearchConfig:
    """Read a search from YAML; none: the default. Raises PedfracError as ``load_config`` does."""
    return validated(SearchConfig, read_yaml(Path(path)) if path else {}, path)


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


def load_config(path: str | None, overrides: list[str]) -> RetrainConfig:
    """Read a retraining's configuration from YAML and ``key.sub=value`` overrides, the latter last.

    Raises PedfracError that names the file or flag, the field, the value found and what is allowed.
    """
    tree = read_yaml(Path(path)) if path else {}
    for override in overrides:
        _set(tree, override)
    tree.setdefault("data", {})  # so that its field is named where nothing is given
    return validated(RetrainConfig, tree, path)


def load_promotion(path: str | None, overrides: list[str]) -> PromoteConfig:
    """Read a promotion's configuration from a YAML file, of a retraining or of promotion alone.

    Sections that promotion does not use are ignored. Raises PedfracError as ``load_config`` does.
    """
    tree = read_yaml(Path(path)) if path else {}
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


def read_json_as(path: Path, kind: type[Read]) -> Read:
    """Read a JSON file as a model. Raises PedfracError that names file and field."""
    try:
        return kind.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise PedfracError(f"{path}: {explain_invalid(error, kind)}") from None
        raise PedfracError(f"{path}: cannot be read as JSON ({error})") from None


def explain_invalid(error: ValidationError, model: type[BaseModel]) -> str:
    """Return one line for all faults that a model found: field, what is allowed, value found."""
    return "; ".join(_explain(fault, model) for fault in error.errors())


def _explain(fault: Any, model: type[BaseModel]) -> str:
    name = ".".join(map(str, fault["loc"])) or "configuration"
    if fault["type"] not in ("missing", "extra_forbidden"):
        return f"{name}: {fault['msg']} (found {fault['input']!r})"
    *section, field = fault["loc"]
    fields = _fields(_section(model, section))
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
            found = _fields(found)[name].annotation
        else:
            found = get_args(found)[-1]  # what a list or a mapping holds
        if isinstance(found, UnionType):
            found = next(kind for kind in get_args(found) if kind is not NoneType)
    return found


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a model by the names that a file gives them."""
    return {str(one.validation_alias or name): one for name, one in model.model_fields.items()}


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the fields of a YAML file; raise PedfracError where it cannot be read as such."""
    try:
        tree = load_yaml(path.read_text(encoding="utf-8-sig")) or {}
    except OSError as error:
        raise PedfracError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PedfracError(f"{path}: is not YAML ({_in_one_line(error)})") from None
    except RepeatedKey as error:
        raise PedfracError(f"{path}: {error}") from None
    if not isinstance(tree, dict):
        raise PedfracError(f"{path}: must hold fields, found {type(tree).__name__}")
    return tree


def _set(tree: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise PedfracError(f"--set {override}: must look like key.sub=value")
    try:
        _put(tree, name, load_yaml(text))
    except yaml.YAMLError as error:
        raise PedfracError(f"--set {override}: is not YAML ({_in_one_line(error)})") from None
    except RepeatedKey as error:
        raise PedfracError(f"--set {override}: {error}") from None
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
