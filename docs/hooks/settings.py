"""MkDocs hook: writes the page of all settings from the descriptions of their fields."""

import types
from typing import Any, Union, get_args, get_origin

from mkdocs.structure.files import File
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pedfrac.config.monitoring import MonitorConfig
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.config.promotion import PromoteConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.search import SearchConfig
from pedfrac.config.serving import PredictionConfig

PAGES: dict[str, type[BaseModel]] = {
    "retrain": RetrainConfig,
    "predict": PredictionConfig,
    "monitor": MonitorConfig,
    "promote": PromoteConfig,
    "search": SearchConfig,
    "phantom": PhantomConfig,
}
HEAD = """# All settings

Generated from the code. [Configuration](configuration.md) says how to set them.
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the page to the files of the site."""
    files.append(File.generated(config, "settings.md", content=page()))
    return files


def page() -> str:
    """Return the page as Markdown: one table per section."""
    parts = [HEAD]
    for name, model in PAGES.items():
        parts.append(f"## `{name}`\n\n{model.__doc__}\n")
        parts += list(sections(model, ""))
    return "\n".join(parts)


def sections(model: type[BaseModel], prefix: str) -> list[str]:
    """Return the tables of a section and of those below it."""
    rows, below = [], []
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is None:
            rows.append(
                f"| `{prefix}{name}` | {default_of(field)} | {escaped(field.description)} |"
            )
        else:
            below += sections(inner, f"{prefix}{name}.")
    table = ["| field | default | meaning |", "|---|---|---|", *rows, ""] if rows else []
    return [*table, *below]


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a field that is a section of its own, else None."""
    kinds = [field.annotation]
    if get_origin(field.annotation) in (Union, types.UnionType):
        kinds = list(get_args(field.annotation))
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def default_of(field: FieldInfo) -> str:
    """Return the default in code marks, or that the field must be given."""
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True)
    return f"`{escaped(value)}`"


def escaped(value: object) -> str:
    """Return text that does not end a cell of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")
