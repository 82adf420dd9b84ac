"""Artifacts in a local folder."""

import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock

from pedfrac.storage.manifest import (
    MANIFEST,
    Artifact,
    Leftover,
    Manifest,
    broken_files,
    parse_manifest,
)
from pedfrac.storage.verification import Stamp


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
        """Return whether a manifest exists."""
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


def partial_folder(folder: Path, keep: bool) -> Path:
    """Return an existing folder, with its content if ``resumable``, else emptied."""
    if folder.exists() and not keep:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_if_possible(stamp: Stamp, manifest: Manifest, sound: Collection[str]) -> None:
    with suppress(OSError):  # where others may only read, each verifies for itself
        stamp.write(manifest.key, manifest.files, sound)
