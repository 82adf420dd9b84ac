"""Hashes of files and values; JSON and folders written whole or not at all."""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

_TICK = 20_000_000  # nanoseconds; a kernel's clock ticks every 1 to 10 ms


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


def file_stamp(path: Path) -> list[int]:
    """Return what changes whenever a file is written or replaced, without opening it.

    Inode and time of change cannot be set, as size and time of writing can: other bytes always have
    another stamp. The same bytes may have another one, too, as after a copy. A file that is younger
    than a tick of the clock is waited for, since within one it could change again unseen.
    """
    status = path.stat()
    while 0 <= (age := time.time_ns() - status.st_ctime_ns) < _TICK:
        time.sleep((_TICK - age) / 1e9)
        status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def write_json(path: Path, value: Any) -> None:
    """Write JSON, or pydantic models, with sorted keys, so that equal values give equal bytes."""
    content = to_jsonable_python(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")
