"""Artifacts: folders that exist once their manifest is written, under keys made from their inputs.

The key is the cache, the lineage and the resume point. What is inside is the maker's affair.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from pedfrac.errors import PedfracError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


class FileEntry(BaseModel):
    """Fingerprint of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sha256: str
    size: int


class Parent(BaseModel):
    """An artifact that went into another: where it lies and what it held."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: str
    digest: str


class Manifest(BaseModel):
    """What an artifact is, what it holds and what it was made from."""

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


@dataclass(frozen=True)
class Artifact:
    """A finished artifact in a local folder."""

    path: Path
    manifest: Manifest

    @property
    def key(self) -> str:
        """The key, such as ``split/1f0c…``."""
        return self.manifest.key

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and contents of all files: equal contents have equal digests."""
        return content_hash({name: entry.sha256 for name, entry in self.manifest.files.items()})

    def file(self, name: str) -> Path:
        """Return the path of a file that the manifest lists."""
        if name not in self.manifest.files:
            raise PedfracError(f"{self.path}: holds no {name}, only {sorted(self.manifest.files)}")
        return self.path / name

    def read_json(self, name: str) -> Any:
        """Return the content of a JSON file of this artifact."""
        return json.loads(self.file(name).read_text())


class ArtifactStore:
    """A folder of artifacts."""

    def __init__(self, root: str | Path):
        self.root = Path(root)

    def produce(
        self,
        kind: str,
        make: Callable[[Path], None],
        *,
        config: Mapping[str, Any] | None = None,
        sources: Mapping[str, str] | None = None,
        parents: Mapping[str, Artifact] | None = None,
        resumable: bool = False,
    ) -> Artifact:
        """Return the artifact of these inputs; call ``make(folder)`` only where it is not there.

        ``config`` is JSON, ``sources`` are fingerprints of inputs from outside the store, and both
        form the key with the contents of ``parents``. A ``resumable`` maker finds in the folder
        what it had written before it was killed; any other finds the folder empty.
        """
        key = self.key(kind, config=config, sources=sources, parents=parents)
        with self._lock(key):
            if (found := self.find(key)) is not None:
                logger.info("%s is there already", key)
                return found
            folder = self._partial(key, keep=resumable)
            make(folder)
            manifest = Manifest(
                kind=kind,
                schema_version=SCHEMA_VERSION,
                key=key,
                config=dict(config or {}),
                sources=dict(sources or {}),
                parents={
                    name: Parent(key=parent.key, digest=parent.digest)
                    for name, parent in (parents or {}).items()
                },
                files=_fingerprint_files(folder),
                code_version=code_version(),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            return self._publish(folder, manifest)

    @staticmethod
    def key(
        kind: str,
        *,
        config: Mapping[str, Any] | None = None,
        sources: Mapping[str, str] | None = None,
        parents: Mapping[str, Artifact] | None = None,
    ) -> str:
        """Return the key under which ``produce`` keeps the artifact of these inputs."""
        contents = {name: parent.digest for name, parent in (parents or {}).items()}
        inputs = [kind, SCHEMA_VERSION, dict(config or {}), dict(sources or {}), contents]
        return f"{kind}/{content_hash(inputs)[:16]}"

    def exists(self, key: str) -> bool:
        """Return whether an artifact was finished under a key, without verifying its files."""
        return (self.root / key / MANIFEST).exists()

    def find(self, key: str) -> Artifact | None:
        """Return the artifact of a key if it is there and every file verifies, else None."""
        path = self.root / key
        if not (path / MANIFEST).exists():
            return None
        artifact = Artifact(path, _read_manifest(path))
        if broken := broken_files(artifact):
            logger.warning("%s does not verify (%s): it will be made again", path, broken)
            return None
        return artifact

    def get(self, key: str) -> Artifact:
        """Return the artifact of a key. Raises PedfracError where it is missing or broken."""
        artifact = self.find(key)
        if artifact is None:
            raise PedfracError(f"{self.root / key}: no verified artifact here")
        return artifact

    def peek(self, key: str) -> Artifact:
        """Return the artifact of a key without verifying its files."""
        return Artifact(self.root / key, _read_manifest(self.root / key))

    def of_kind(self, kind: str) -> Iterator[Artifact]:
        """Yield the artifacts of a kind, newest first, without verifying them."""
        folders = (path.parent for path in (self.root / kind).glob(f"*/{MANIFEST}"))
        artifacts = [Artifact(folder, _read_manifest(folder)) for folder in folders]
        yield from sorted(artifacts, key=lambda a: a.manifest.created, reverse=True)

    def _lock(self, key: str) -> FileLock:
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{key.replace('/', '-')}.lock")

    def _partial(self, key: str, keep: bool) -> Path:
        folder = self.root / ".partial" / key
        if folder.exists() and not keep:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _publish(self, folder: Path, manifest: Manifest) -> Artifact:
        """Write the manifest last, then move the folder to its place in one step."""
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
        final = self.root / manifest.key
        if final.exists():
            shutil.rmtree(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        folder.replace(final)
        logger.info("%s made", manifest.key)
        return Artifact(final, manifest)


def broken_files(artifact: Artifact) -> list[str]:
    """Return the names of an artifact's files that are missing or changed since it was made."""
    return [
        name
        for name, entry in artifact.manifest.files.items()
        if not _matches(artifact.path / name, entry)
    ]


def export(source: Path, target: Path) -> None:
    """Copy a file or folder to where a person looks for it, replacing what is there at once."""
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
    """Return the SHA-256 of a JSON value in canonical form, as hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file with sorted keys, so that equal values give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def code_version() -> str:
    """Return the version of the installed package."""
    try:
        return version("pedfrac")
    except PackageNotFoundError:
        return "unknown"


def code_digest() -> str:
    """Return the SHA-256 over the domain's source files: what a version number may not tell."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return content_hash({source.name: file_hash(source) for source in sources})


def _fingerprint_files(folder: Path) -> dict[str, FileEntry]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {
        path.relative_to(folder).as_posix(): FileEntry(
            sha256=file_hash(path), size=path.stat().st_size
        )
        for path in paths
    }


def _matches(path: Path, entry: FileEntry) -> bool:
    return path.is_file() and path.stat().st_size == entry.size and file_hash(path) == entry.sha256


def _read_manifest(folder: Path) -> Manifest:
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_text())
    except (OSError, ValidationError) as error:
        raise PedfracError(f"{folder / MANIFEST}: is no manifest ({error})") from None
