"""Stamps: notes of which files were verified, so that none is hashed again while it stays as it is.

A change shows by size, time or inode. What only shows by reading, as a disk that forgets, is found
by an explicit verification. Not here: what a file must be and where it lies.
"""

import json
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

# A file that changes again within a tick of the clock keeps its time: so young ones are not noted.
TICK = 20_000_000  # nanoseconds; a kernel's clock ticks every 1 to 10 ms


class Expected(Protocol):
    """What a file must be."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def identity(self) -> str:
        """What another content would have otherwise."""

    def fits(self, path: Path) -> bool:
        """Return whether a file exists and is this one."""


@dataclass(frozen=True)
class Note:
    """Content of a stamp: size of a folder, last use, and its verified files."""

    name: str
    size: int
    files: dict[str, Any]
    used: float


class Stamp:
    """The stamp of one folder, in a separate file; if missing or damaged it is empty."""

    def __init__(self, path: Path, folder: Path):
        self.path, self._folder = path, folder

    def covers(self, files: Mapping[str, Expected]) -> bool:
        """Return whether these are the files that were verified, and lie there as they did."""
        note = read_note(self.path)
        return (
            note is not None
            and note.files.keys() == files.keys()
            and all(note.files[name] == self._status(name, one) for name, one in files.items())
        )

    def sound(self, files: Mapping[str, Expected]) -> set[str]:
        """Return the files that verify; only those without a stamp are hashed."""
        note = read_note(self.path)
        noted = {} if note is None else note.files
        return {
            name
            for name, one in files.items()
            if (status := self._status(name, one)) is not None
            and (noted.get(name) == status or one.fits(self._folder / name))
        }

    def write(self, name: str, files: Mapping[str, Expected], sound: Collection[str]) -> None:
        """Note which files are verified, as they lie there now."""
        statuses = {file: self._status(file, one) for file, one in files.items() if file in sound}
        old = time.time_ns() - TICK
        content = {
            "name": name,
            "size": sum(one.size for one in files.values()),
            "files": {file: one for file, one in statuses.items() if one and one[1] < old},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{uuid.uuid4().hex}")
        temporary.write_text(json.dumps(content))
        temporary.replace(self.path)

    def _status(self, name: str, expected: Expected) -> list[Any] | None:
        """Return size, time, inode and identity of a file; None where it is not."""
        try:
            status = (self._folder / name).stat()
        except OSError:
            return None
        return [status.st_size, status.st_mtime_ns, status.st_ino, expected.identity]


def read_note(path: Path) -> Note | None:
    """Return the content of a stamp, or None."""
    try:
        content = json.loads(path.read_text())
        return Note(content["name"], content["size"], content["files"], path.stat().st_mtime)
    except (OSError, ValueError, KeyError):
        return None  # gone, or cut off with the power: the files are then looked at themselves


def notes(folder: Path) -> Iterator[Note]:
    """Yield what the stamps in a folder say."""
    for path in folder.glob("*.json"):
        if (note := read_note(path)) is not None:
            yield note
