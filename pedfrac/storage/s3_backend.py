"""Artifacts in object storage: manifests are read there, files through the node's cache.

A writer uploads its files under a prefix of its own and then puts the manifest that names the
prefix, conditionally: of several writers of one key, one succeeds.
"""

import logging
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock

from pedfrac.errors import PedfracError
from pedfrac.storage.files import content_hash
from pedfrac.storage.local_backend import partial_folder
from pedfrac.storage.manifest import MANIFEST, Artifact, Leftover, Manifest, parse_manifest
from pedfrac.storage.node_cache import Cache, cache_of_environment
from pedfrac.storage.s3_checkpoint import RemotePartial, discard
from pedfrac.storage.s3_client import CONNECTIONS, Objects, Upload

logger = logging.getLogger(__name__)
_PLACE = re.compile(r"([^/.][^/]*/[0-9a-f]{16}/files-[0-9a-f]{12})/")
_HIDDEN = re.compile(r"\.(partial|probes)/")
_UPLOAD = "?uploadId="


class ObjectStorage:
    """Artifacts below ``s3://bucket/prefix``, each with its files in the cache when opened."""

    def __init__(self, url: str, cache: Cache | None = None):
        self.objects = Objects(url)
        self.cache = cache or cache_of_environment()
        # the same bucket name may mean different things on different servers
        origin = content_hash([self.objects.endpoint, self.objects.url()])[:12]
        self.name = f"{self.objects.bucket}-{origin}"
        self._partials: dict[Path, RemotePartial] = {}

    def address(self, key: str) -> str:
        """Return the URL of an artifact."""
        return self.objects.url(key)

    def place(self, manifest: Manifest) -> str:
        """Return the URL below which the files of an artifact lie."""
        return self.objects.url(_place(manifest))

    def lock(self, key: str) -> FileLock:
        """Return the lock of a key on this node; between nodes the manifest decides."""
        return self.cache.locked(f"{self.name}/{key}", "make")

    def manifest(self, key: str) -> Manifest | None:
        """Return the manifest of a key, or None."""
        name = f"{key}/{MANIFEST}"
        data = self.objects.get(name)
        return None if data is None else parse_manifest(data, self.objects.url(name))

    def exists(self, key: str) -> bool:
        """Return whether a manifest exists."""
        return self.objects.exists(f"{key}/{MANIFEST}")

    def manifests(self, kind: str | None) -> Iterator[Manifest]:
        """Yield the manifests of a kind, or of all."""
        kinds = [kind] if kind else [k for k in self.objects.folders() if not k.startswith(".")]
        keys = [f"{kind}/{name}" for kind in kinds for name in self.objects.folders(f"{kind}/")]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            # a folder without a manifest is another writer's that is not done, or was killed
            yield from filter(None, pool.map(self.manifest, keys))

    def open(self, manifest: Manifest) -> tuple[Path, list[str]]:
        """Fetch an artifact into the cache; return its folder and the files that do not verify."""
        remote, entry = _place(manifest), self._entry(manifest)

        def download(files: Mapping[str, Path], done: Callable[[str], None]) -> None:
            logger.info("%s: fetching %d files", self.address(manifest.key), len(files))
            names = {f"{remote}/{name}": name for name in files}
            targets = {full: files[name] for full, name in names.items()}
            self.objects.download(targets, lambda full: done(names[full]))

        broken = self.cache.fetch(entry, manifest.files, download)
        path = self.cache.path(entry)
        if not (path / MANIFEST).exists():
            _write_manifest(path, manifest)
        return path, broken

    @contextmanager
    def partial(self, key: str, resumable: bool) -> Iterator[Path]:
        """Yield the folder to make an artifact in, with the latest state that any node saved."""
        work = self.cache.work(f"partial/{self.name}/{key}")
        remote = RemotePartial(self.objects, key, self.cache.work(f"snapshots/{self.name}/{key}"))
        folder = partial_folder(work, resumable)
        if resumable:
            remote.restore(folder)
            self._partials[folder] = remote
        try:
            yield folder
        except BaseException:
            remote.save_last()
            raise
        finally:
            self._partials.pop(folder, None)
            remote.close()

    def checkpoint(self, folder: Path) -> None:
        """Upload the content of a partial folder in the background."""
        self._partials[folder].save(folder)

    def publish(self, folder: Path, manifest: Manifest, broken: Manifest | None) -> Artifact:
        """Upload the files, then the manifest if nobody was faster; keep the winner's files."""
        manifest = manifest.model_copy(update={"place": f"files-{uuid.uuid4().hex[:12]}"})
        remote = _place(manifest)
        uploads = [
            Upload(folder / name, f"{remote}/{name}", entry.sha256)
            for name, entry in manifest.files.items()
        ]
        self.objects.upload(uploads)
        winner = self._put_manifest(manifest, broken)
        if winner == manifest:
            _write_manifest(folder, manifest)
            self.cache.adopt(self._entry(manifest), folder, manifest.files)
        else:
            logger.warning("%s: another writer was faster", self.address(manifest.key))
            self.objects.delete(upload.name for upload in uploads)
        discard(self.objects, manifest.key)
        return self._opened(winner)

    def verify(self, manifest: Manifest) -> list[str]:
        """Return the files that do not verify in the store, reading each there."""
        place, files = _place(manifest), manifest.files
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            hashes = pool.map(self.objects.sha256, [f"{place}/{name}" for name in files])
            return [
                name
                for (name, entry), found in zip(files.items(), hashes, strict=True)
                if found != entry.sha256
            ]

    def remove(self, manifest: Manifest) -> None:
        """Remove an artifact, manifest first."""
        self.objects.delete([f"{manifest.key}/{MANIFEST}"])
        self.objects.delete([f"{_place(manifest)}/{name}" for name in manifest.files])

    def leftovers(self, before: datetime) -> list[Leftover]:
        """Return files that no manifest names and parts of uploads, of lost processes.

        Only names that this store gives are looked at; whatever else lies there stays.
        """
        named = {_place(manifest) for manifest in self.manifests(None)}
        found = [
            Leftover(one.name, one.size)
            for one in self.objects.listing()
            if one.modified < before
            and (_HIDDEN.match(one.name) or ((p := _PLACE.match(one.name)) and p[1] not in named))
        ]
        uploads = self.objects.open_uploads(before)
        return found + [Leftover(f"{name}{_UPLOAD}{upload}", 0) for name, upload in uploads]

    def remove_leftovers(self, leftovers: Sequence[Leftover]) -> None:
        """Remove what lost processes left."""
        names = [leftover.name for leftover in leftovers]
        self.objects.delete(name for name in names if _UPLOAD not in name)
        for name in names:
            if _UPLOAD in name:
                self.objects.abort_upload(*name.split(_UPLOAD))

    def _put_manifest(self, manifest: Manifest, broken: Manifest | None) -> Manifest:
        """Put a manifest where there is none or a broken one; return the one then in place."""
        name = f"{manifest.key}/{MANIFEST}"
        if broken is not None and self.manifest(manifest.key) == broken:
            self.objects.delete([name])
        while not self.objects.put_new(name, _encoded(manifest)):
            if (winner := self.manifest(manifest.key)) is not None:
                return winner
        return manifest

    def _opened(self, manifest: Manifest) -> Artifact:
        path, broken = self.open(manifest)
        if broken:
            raise PedfracError(f"{self.address(manifest.key)}: {broken} changed or missing")
        return Artifact(manifest, lambda: path)

    def _entry(self, manifest: Manifest) -> str:
        return f"{self.name}/{_place(manifest)}"


def _place(manifest: Manifest) -> str:
    return f"{manifest.key}/{manifest.place}".rstrip("/")


def _encoded(manifest: Manifest) -> bytes:
    return (manifest.model_dump_json(indent=2) + "\n").encode()


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    temporary = folder / f".{MANIFEST}.{uuid.uuid4().hex}"
    temporary.write_bytes(_encoded(manifest))
    temporary.replace(folder / MANIFEST)
