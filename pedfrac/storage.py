"""Artifacts: folders that exist once their manifest is written, under keys made from their inputs.

The key is the cache, the lineage and the resume point. What is inside is the maker's affair.
"""

import hashlib
import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pedfrac.errors import PedfracError
from pedfrac.stamps import Stamp

logger = logging.getLogger(__name__)

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
        """Return whether a file is there with this size and content."""
        return (
            path.is_file() and path.stat().st_size == self.size and file_hash(path) == self.sha256
        )


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
    place: str = Field("", description="In object storage: the folder of its files below the key")
    told_by: tuple[str, ...] = Field(
        (), description="The files that make the digest, where others hold the same; none: all"
    )


@dataclass(frozen=True)
class Leftover:
    """What a writer left that was lost before it published: a file or folder, and its bytes."""

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

        Where files tell all that others hold, however it is laid out, it is over those that tell.
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
    """Where artifacts are kept. Manifests travel alone; files come to this machine on demand."""

    def address(self, key: str) -> str:
        """Return where an artifact lies, as people are told."""

    def place(self, manifest: Manifest) -> str:
        """Return where the files of an artifact lie, as people are told."""

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
        """Return the folder to make an artifact in; empty, or as far as an earlier try came."""

    def checkpoint(self, folder: Path) -> None:
        """Let another machine go on from what lies in a partial folder now."""

    def publish(self, folder: Path, manifest: Manifest, broken: Manifest | None) -> Artifact:
        """Move a finished folder in, manifest last, in place of a ``broken`` one.

        Returns the artifact that is there then: another writer's where that one was faster.
        """

    def verify(self, manifest: Manifest) -> list[str]:
        """Return the files that do not verify where they are kept, whatever is cached."""

    def remove(self, manifest: Manifest) -> None:
        """Remove an artifact, manifest first."""

    def leftovers(self, before: datetime) -> list[Leftover]:
        """Return what lost writers left that was not touched since a time."""

    def remove_leftovers(self, leftovers: Sequence[Leftover]) -> None:
        """Remove what lost writers left."""


class ArtifactStore:
    """All artifacts below a root, which is a folder or ``s3://bucket/prefix``."""

    def __init__(self, root: str | Path):
        self._backend = _backend(root)

    def produce(
        self,
        kind: str,
        make: Callable[[Path], object],
        *,
        config: Mapping[str, Any] | None = None,
        sources: Mapping[str, str] | None = None,
        parents: Mapping[str, Artifact] | None = None,
        resumable: bool = False,
        told_by: Sequence[str] = (),
    ) -> Artifact:
        """Return the artifact of these inputs; call ``make(folder)`` only where it is not there.

        ``config`` is JSON, ``sources`` are fingerprints of inputs from outside the store, and both
        form the key with the contents of ``parents``. A ``resumable`` maker finds in the folder
        what it had written before it was killed; any other finds the folder empty. It may link
        files of a verified artifact; if it returns that, what was hashed is not hashed again.
        ``told_by`` names the files that make the digest, if not all do.
        """
        key = self.key(kind, config=config, sources=sources, parents=parents)
        with self._backend.lock(key):
            there = self._backend.manifest(key)
            if there is not None and (found := self._verified(there)) is not None:
                logger.info("%s is there already", key)
                return found
            with self._backend.partial(key, resumable) as folder:
                began = time.monotonic()
                returned = make(folder)
                seconds = time.monotonic() - began
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
                files=_fingerprint_files(folder, returned),
                code_version=code_version(),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                told_by=tuple(told_by),
            )
            published = self._backend.publish(folder, manifest, broken=there)
            logger.info("%s made in %.1f s", key, seconds)
            return published

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
        return self._backend.exists(key)

    def find(self, key: str) -> Artifact | None:
        """Return the artifact of a key if it is there and every file verifies, else None."""
        manifest = self._backend.manifest(key)
        return None if manifest is None else self._verified(manifest)

    def get(self, key: str) -> Artifact:
        """Return the artifact of a key. Raises PedfracError where it is missing or broken."""
        return self._opened(self.peek(key).manifest)

    def peek(self, key: str) -> Artifact:
        """Return the artifact of a key by its manifest alone; its files are not looked at."""
        manifest = self._backend.manifest(key)
        if manifest is None:
            raise PedfracError(f"{self._backend.address(key)}: no artifact here")
        return self._unopened(manifest)

    def of_kind(self, kind: str | None = None) -> Iterator[Artifact]:
        """Yield the artifacts of a kind, or all, newest first, by their manifests alone."""
        manifests = self._backend.manifests(kind)
        for manifest in sorted(manifests, key=lambda m: (m.created, m.key), reverse=True):
            yield self._unopened(manifest)

    def place(self, key: str) -> str:
        """Return where a person finds the files of an artifact: a folder or a URL."""
        return self._backend.place(self.peek(key).manifest)

    def checkpoint(self, folder: Path) -> None:
        """Let another machine go on from what a resumable maker has in its folder now.

        What lies there must be of one moment; files may be replaced later, but not written into.
        Where artifacts are kept in a local folder there is nothing to do.
        """
        self._backend.checkpoint(folder)

    def verify(self, key: str) -> list[str]:
        """Return the files of an artifact that are missing or changed where it is kept."""
        return self._backend.verify(self.peek(key).manifest)

    def remove(self, manifest: Manifest) -> None:
        """Remove an artifact, manifest first."""
        self._backend.remove(manifest)

    def leftovers(self, before: datetime) -> list[Leftover]:
        """Return what lost writers left that was not touched since a time."""
        return self._backend.leftovers(before)

    def remove_leftovers(self, leftovers: Sequence[Leftover]) -> None:
        """Remove what lost writers left."""
        self._backend.remove_leftovers(leftovers)

    def _verified(self, manifest: Manifest) -> Artifact | None:
        path, broken = self._backend.open(manifest)
        if broken:
            address = self._backend.address(manifest.key)
            logger.warning("%s does not verify (%s): it will be made again", address, broken)
            return None
        return Artifact(manifest, lambda: path)

    def _opened(self, manifest: Manifest) -> Artifact:
        path, broken = self._backend.open(manifest)
        if broken:
            address = self._backend.address(manifest.key)
            raise PedfracError(f"{address}: no verified artifact here, {broken} changed or missing")
        return Artifact(manifest, lambda: path)

    def _unopened(self, manifest: Manifest) -> Artifact:
        return Artifact(manifest, lambda: self._opened(manifest).path)


class LocalFolder:
    """Artifacts in a folder: each under its key, unfinished ones under ``.partial``."""

    def __init__(self, root: Path):
        self.root = root

    def address(self, key: str) -> str:
        """Return the folder of an artifact."""
        return str(self.root / key)

    def place(self, manifest: Manifest) -> str:
        """Return the folder of an artifact."""
        return self.address(manifest.key)

    def lock(self, key: str) -> FileLock:
        """Return the lock of a key."""
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{key.replace('/', '-')}.lock")

    def manifest(self, key: str) -> Manifest | None:
        """Return the manifest of a key, or None."""
        path = self.root / key / MANIFEST
        return parse_manifest(path.read_bytes(), str(path)) if path.exists() else None

    def exists(self, key: str) -> bool:
        """Return whether a manifest is there."""
        return (self.root / key / MANIFEST).exists()

    def manifests(self, kind: str | None) -> Iterator[Manifest]:
        """Yield the manifests of a kind, or of all."""
        for path in self.root.glob(f"{kind or '[!.]*'}/*/{MANIFEST}"):
            yield parse_manifest(path.read_bytes(), str(path))

    def open(self, manifest: Manifest) -> tuple[Path, list[str]]:
        """Return the folder of an artifact and the files that do not verify.

        Files that were verified once are not hashed again while they stay as they are.
        """
        path, stamp = self.root / manifest.key, self._stamp(manifest.key)
        if stamp.covers(manifest.files):
            return path, []
        sound = stamp.sound(manifest.files)
        _write_if_possible(stamp, manifest, sound)
        return path, [name for name in manifest.files if name not in sound]

    @contextmanager
    def partial(self, key: str, resumable: bool) -> Iterator[Path]:
        """Yield the folder to make an artifact in."""
        yield partial_folder(self.root / ".partial" / key, resumable)

    def checkpoint(self, folder: Path) -> None:
        """Do nothing: the partial folder itself outlasts its maker."""

    def publish(self, folder: Path, manifest: Manifest, broken: Manifest | None) -> Artifact:
        """Write the manifest last, then move the folder to its place in one step."""
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
        final = self.root / manifest.key
        if final.exists():
            shutil.rmtree(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        folder.replace(final)
        _write_if_possible(self._stamp(manifest.key), manifest, manifest.files)
        return Artifact(manifest, lambda: final)

    def verify(self, manifest: Manifest) -> list[str]:
        """Return the files that do not verify, all of them hashed."""
        return broken_files(self.root / manifest.key, manifest)

    def remove(self, manifest: Manifest) -> None:
        """Take an artifact out of its place in one step, then remove it."""
        gone = self.root / ".partial" / "removed" / uuid.uuid4().hex
        gone.parent.mkdir(parents=True, exist_ok=True)
        (self.root / manifest.key).replace(gone)
        self._stamp(manifest.key).path.unlink(missing_ok=True)
        shutil.rmtree(gone)

    def leftovers(self, before: datetime) -> list[Leftover]:
        """Return unfinished artifacts, and finished ones half removed, of lost processes."""
        return [
            Leftover(folder.relative_to(self.root).as_posix(), sum(one.st_size for one in files))
            for folder in self.root.glob(".partial/*/*")
            if (files := [path.stat() for path in [folder, *folder.rglob("*")]])
            and max(one.st_mtime for one in files) < before.timestamp()
        ]

    def remove_leftovers(self, leftovers: Sequence[Leftover]) -> None:
        """Remove folders of lost processes."""
        for leftover in leftovers:
            shutil.rmtree(self.root / leftover.name, ignore_errors=True)

    def _stamp(self, key: str) -> Stamp:
        return Stamp(self.root / ".stamps" / f"{key.replace('/', '-')}.json", self.root / key)


def is_remote(root: str | Path) -> bool:
    """Return whether a root names object storage, ``s3://bucket/prefix``, and not a folder."""
    return str(root).startswith("s3://")


def _backend(root: str | Path) -> Backend:
    if is_remote(root):
        from pedfrac.remote import ObjectStorage  # boto3 is needed by those alone who use S3

        return ObjectStorage(str(root))
    return LocalFolder(Path(root))


def partial_folder(folder: Path, keep: bool) -> Path:
    """Return a folder that is there: with what it held, or empty."""
    if folder.exists() and not keep:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def broken_files(path: Path, manifest: Manifest) -> list[str]:
    """Return the names of an artifact's files that are missing or changed since it was made."""
    return [name for name, entry in manifest.files.items() if not entry.fits(path / name)]


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Return a manifest from its JSON. Raises PedfracError that names where it was read."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise PedfracError(f"{where}: is no manifest ({error})") from None


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
    """Return the SHA-256 over the domain's files, templates too: what no version number tells."""
    folder = Path(__file__).parent
    files = sorted(path for path in folder.rglob("*.*") if path.is_file())
    sources = (path for path in files if path.suffix != ".pyc")
    return content_hash({str(path.relative_to(folder)): file_hash(path) for path in sources})


def _fingerprint_files(folder: Path, linked: object) -> dict[str, FileEntry]:
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


def _write_if_possible(stamp: Stamp, manifest: Manifest, sound: Collection[str]) -> None:
    with suppress(OSError):  # where others may only read, each verifies for itself
        stamp.write(manifest.key, manifest.files, sound)
