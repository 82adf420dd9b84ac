"""Hashes of files and values; JSON and folders written whole or not at all."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python


def export(source: Path, target: Path) -> None:
    """Copy a file or folder to a path for people to open, replacing the old one atomically."""
    temporary = target.with_name(f".{target.name}.new")
    if temporary.is_dir():
        shutil.rmtree(temporary)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, temporary)
        if target.exists():
            shutil.rmtree(target)
    else:
        shutil.copyfile(source, temporary)
    temporary.replace(target)


def content_hash(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form, as hexadecimal.

    Equal values have equal hashes: 5 and 5.0 are one number of JSON, as in RFC 8785.
    """
    text = json.dumps(plain_numbers(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plain_numbers(value: Any) -> Any:
    """Return a JSON value whose whole numbers are integers, tuples being lists."""
    if isinstance(value, Mapping):
        return {name: plain_numbers(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON, or pydantic models, with sorted keys, so that equal values give equal bytes."""
    content = to_jsonable_python(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")
