"""Artifacts: folders that exist once their manifest is written, under keys made from their inputs.

The key is the cache, the lineage and the resume point. What is inside is the maker's affair.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pedfrac.errors import PedfracError
from pedfrac.storage.code_version import code_version
from pedfrac.storage.inputs import Inputs
from pedfrac.storage.local_backend import LocalFolder
from pedfrac.storage.manifest import (
    SCHEMA_VERSION,
    Artifact,
    Backend,
    Leftover,
    Manifest,
    fingerprint_files,
)
from pedfrac.storage.uri import is_remote

logger = logging.getLogger(__name__)


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
        inputs = Inputs.of(kind, config, sources, parents)
        key = inputs.key
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
                schema_version=SCHEMA_VERSION,
                key=key,
                **{name: getattr(inputs, name) for name in Inputs.model_fields},
                files=fingerprint_files(folder, returned),
                code_version=code_version(),
                created=datetime.now(UTC).isoformat(timespec="microseconds"),
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
        return Inputs.of(kind, config, sources, parents).key

    def exists(self, key: str) -> bool:
        """Return whether an artifact was finished under a key, without verifying its files."""
        return self._backend.exists(key)

    def find(self, key: str) -> Artifact | None:
        """Return the artifact of a key if it exists and every file verifies, else None."""
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

    def address(self, key: str) -> str:
        """Return where an artifact lies or would lie: a folder or a URL."""
        return self._backend.address(key)

    def place(self, key: str) -> str:
        """Return where a person finds the files of an artifact: a folder or a URL."""
        return self._backend.place(self.peek(key).manifest)

    def checkpoint(self, folder: Path) -> None:
        """Save the folder of a resumable maker so that another machine can continue from it.

        Its files must be consistent; they may be replaced later, but not modified in place.
        A local store has nothing to do.
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


def _backend(root: str | Path) -> Backend:
    if is_remote(root):
        from pedfrac.storage.s3_backend import (
            ObjectStorage,  # boto3 is needed by those alone who use S3
        )

        return ObjectStorage(str(root))
    return LocalFolder(Path(root))
