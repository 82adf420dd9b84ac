"""Manifests: kind, files, settings and parents of an artifact."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pedfrac.errors import PedfracError
from pedfrac.storage.files import content_hash, file_hash

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


class FileEntry(BaseModel):
    """Fingerprint of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sha256: str
    size: int

    @property
    def identity(self) -> str:
        """What another content would have otherwise."""
        return self.sha256

    def fits(self, path: Path) -> bool:
        """Return whether a file exists with this size and content."""
        return (
            path.is_file() and path.stat().st_size == self.size and file_hash(path) == self.sha256
        )


class Parent(BaseModel):
    """A parent artifact: its key and the digest of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str
    digest: str


class Manifest(BaseModel):
    """Kind, files, settings and parents of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str
    schema_version: int
    key: str
    config: dict[str, Any]
    sources: dict[str, str]
    parents: dict[str, Parent]
    files: dict[str, FileEntry]
    code_version: str
    created: str
    place: str = Field("", description="In object storage: the folder of its files below the key")
    told_by: tuple[str, ...] = Field(
        (), description="The files that make the digest, where others hold the same; none: all"
    )


@dataclass(frozen=True)
class Leftover:
    """A file or folder left by a writer that died before publishing, and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its manifest, and its files in a local folder."""

    manifest: Manifest
    locate: Callable[[], Path] = field(repr=False, compare=False)

    @cached_property
    def path(self) -> Path:
        """The local folder; from object storage the files are fetched when first asked for."""
        return self.locate()

    @property
    def key(self) -> str:
        """The key, such as ``split/1f0c…``."""
        return self.manifest.key

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and contents of its files: equal contents have equal digests.

        Where some files describe the whole content however it is laid out (``told_by``), only
        those count.
        """
        manifest = self.manifest
        names = manifest.told_by or manifest.files
        return content_hash({name: manifest.files[name].sha256 for name in names})

    def file(self, name: str) -> Path:
        """Return the path of a file that the manifest lists."""
        if name not in self.manifest.files:
            raise PedfracError(f"{self.path}: holds no {name}, only {sorted(self.manifest.files)}")
        return self.path / name

    def read_json(self, name: str) -> Any:
        """Return the content of a JSON file of this artifact."""
        return json.loads(self.file(name).read_text())


class Backend(Protocol):
    """Where artifacts are kept. Manifests are read alone; files are fetched on demand."""

    def address(self, key: str) -> str:
        """Return the location of an artifact as shown to people."""

    def place(self, manifest: Manifest) -> str:
        """Return the location of the files of an artifact as shown to people."""

    def lock(self, key: str) -> AbstractContextManager[Any]:
        """Return a lock that keeps other makers of a key on this machine waiting."""

    def manifest(self, key: str) -> Manifest | None:
        """Return the manifest of a key, or None where nothing was published."""

    def exists(self, key: str) -> bool:
        """Return whether a manifest was published under a key."""

    def manifests(self, kind: str | None) -> Iterator[Manifest]:
        """Yield the manifests of a kind, or of all, in any order."""

    def open(self, manifest: Manifest) -> tuple[Path, list[str]]:
        """Return the local folder of an artifact's files, and the files that do not verify."""

    def partial(self, key: str, resumable: bool) -> AbstractContextManager[Path]:
        """Return the folder to make an artifact in: empty, or with what an earlier attempt left."""

    def checkpoint(self, folder: Path) -> None:
        """Save the content of a partial folder so that another machine can continue from it."""

    def publish(self, folder: Path, manifest: Manifest, broken: Manifest | None) -> Artifact:
        """Move a finished folder in, manifest last, in place of a ``broken`` one.

        Returns the published artifact: another writer's where that writer was faster.
        """

    def verify(self, manifest: Manifest) -> list[str]:
        """Return the files that do not verify where they are kept, whatever is cached."""

    def remove(self, manifest: Manifest) -> None:
        """Remove an artifact, manifest first."""

    def leftovers(self, before: datetime) -> list[Leftover]:
        """Return what lost writers left that was not touched since a time."""

    def remove_leftovers(self, leftovers: Sequence[Leftover]) -> None:
        """Remove what lost writers left."""


def broken_files(path: Path, manifest: Manifest) -> list[str]:
    """Return the names of an artifact's files that are missing or changed since it was made."""
    return [name for name, entry in manifest.files.items() if not entry.fits(path / name)]


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Return a manifest from its JSON. Raises PedfracError that names where it was read."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise PedfracError(f"{where}: is no manifest ({error})") from None


def fingerprint_files(folder: Path, linked: object) -> dict[str, FileEntry]:
    """Return the fingerprint of each file; if ``linked`` is an artifact, its are known already."""
    known = dict(_entries_by_file(linked)) if isinstance(linked, Artifact) else {}
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {
        path.relative_to(folder).as_posix(): known.get(_file_of(path))
        or FileEntry(sha256=file_hash(path), size=path.stat().st_size)
        for path in paths
    }


def _entries_by_file(artifact: Artifact) -> Iterator[tuple[tuple[int, ...], FileEntry]]:
    for name, entry in artifact.manifest.files.items():
        path = artifact.path / name
        if path.is_file() and path.stat().st_size == entry.size:  # it may be removed meanwhile
            yield _file_of(path), entry


def _file_of(path: Path) -> tuple[int, ...]:
    """Return what two names of the very same file have in common."""
    return path.stat().st_dev, path.stat().st_ino
