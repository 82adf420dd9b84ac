"""The options that commands share, and the configuration that they give."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object; logs go to stderr")]


@dataclass
class Settings:
    """Configuration options shared by commands; listed before their own."""

    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file with the configuration")
    ] = None
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="Data folder (the same as --set data.root=…)"),
    ] = None
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="One value, such as fracture.training.epochs=5; may be repeated"
        ),
    ] = None
    missing: Annotated[
        str | None, typer.Option(help="Images without an image: 'error' or 'drop' (data.missing)")
    ] = None

    def load(self, more: Mapping[str, object] | None = None) -> Any:
        """Return the configuration (see ``read``).

        Obvious faults of the files it names are reported here, before anything starts.
        """
        config = self.read(more)
        _check_files(config)
        return config

    def read(self, more: Mapping[str, object] | None = None) -> Any:
        """Return the configuration: file, then flags and ``more``, then --set."""
        from pedfrac.config.loading import load_config

        flags = {"data.root": self.data, "data.missing": self.missing, **(more or {})}
        # as JSON, which YAML includes: a folder called 2024 is no number
        given = [
            f"{name}={json.dumps(value)}" for name, value in flags.items() if value is not None
        ]
        path = str(self.config) if self.config else None
        return load_config(path, [*given, *(self.overrides or [])])


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command whose first parameter is a ``Settings`` the options of one."""
    shared = list(inspect.signature(Settings).parameters.values())
    own = list(inspect.signature(command).parameters.values())[1:]

    def run(**given: Any) -> None:
        command(Settings(**{option.name: given.pop(option.name) for option in shared}), **given)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature([*shared, *own])  # type: ignore[attr-defined]
    return run


def _check_files(config: Any) -> None:
    from pedfrac.data.layout import check_layout
    from pedfrac.data.split_file import read_split_file
    from pedfrac.storage.uri import is_remote

    if not is_remote(config.data.root):
        check_layout(config.data)
    if config.split.file:
        read_split_file(Path(config.split.file))
