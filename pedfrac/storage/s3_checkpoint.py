"""The copy of an unfinished artifact in object storage, from which another node can continue.

Files are stored under their hashes and a manifest is put last, so an incomplete copy is never used.
The maker decides when its folder is consistent.
"""

import logging
import os
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pedfrac.errors import PedfracError
from pedfrac.storage.files import file_hash
from pedfrac.storage.manifest import MANIFEST, FileEntry
from pedfrac.storage.s3_client import Objects, Upload

logger = logging.getLogger(__name__)
SECONDS_BETWEEN = 30.0  # so that short epochs do not spend their time on uploads


class PartialManifest(BaseModel):
    """The files of an unfinished artifact, and when the newest of them was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    saved: float
    files: dict[str, FileEntry]


class RemotePartial:
    """What one maker keeps elsewhere of its work; ``scratch`` is a folder for its snapshots.

    A copy that cannot be written or read costs work, not the run: it is reported and left.
    """

    def __init__(self, objects: Objects, key: str, scratch: Path):
        self.objects, self.scratch = objects, scratch
        self.below = _below(key)
        self._uploaded: set[str] = set()  # hashes of the files that the last manifest names
        self._pending: Path | None = None  # a snapshot that came too early to be uploaded
        self._running: Future[None] | None = None
        self._begun = -SECONDS_BETWEEN
        self._numbers = count()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")

    def save(self, folder: Path) -> None:
        """Take a snapshot of a folder; upload it in the background unless one was sent just before.

        Files may be replaced meanwhile but not modified in place: the snapshot is hard links.
        """
        self._drop_pending()
        self._pending = _linked(folder, self.scratch / str(next(self._numbers)))
        busy = self._running is not None and not self._running.done()
        if not busy and time.monotonic() - self._begun >= SECONDS_BETWEEN:
            self._begun = time.monotonic()
            self._running = self._pool.submit(self._upload, self._pending)
            self._pending = None

    def save_last(self) -> None:
        """Upload the newest snapshot if needed, and wait for it to finish."""
        if self._pending is not None:
            self._running = self._pool.submit(self._upload, self._pending)
            self._pending = None
        if self._running is not None:
            self._running.result()

    def restore(self, folder: Path) -> None:
        """Replace a folder by its remote copy if that is newer or the folder is empty."""
        try:
            manifest = self._manifest()
            if manifest is None or manifest.saved <= _newest(folder):
                return
            self._fetch(manifest, self.scratch / "restored")
        except PedfracError as error:
            logger.warning("%s: cannot go on from there (%s)", self._url, error)
            return
        shutil.rmtree(folder)
        (self.scratch / "restored").replace(folder)
        self._uploaded = {entry.sha256 for entry in manifest.files.values()}
        logger.info("%s: goes on from there", self._url)

    def close(self) -> None:
        """Wait for the running upload and remove all snapshots."""
        self._pool.shutdown()
        shutil.rmtree(self.scratch, ignore_errors=True)

    @property
    def _url(self) -> str:
        return self.objects.url(self.below)

    def _upload(self, snapshot: Path) -> None:
        try:
            self._upload_changed(snapshot)
        except PedfracError as error:
            logger.warning("%s: the checkpoint was not uploaded (%s)", self._url, error)
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)

    def _upload_changed(self, snapshot: Path) -> None:
        files = {
            path.relative_to(snapshot).as_posix(): FileEntry(
                sha256=file_hash(path), size=path.stat().st_size
            )
            for path in _files(snapshot)
        }
        new = {entry.sha256: name for name, entry in files.items()}
        changed = new.keys() - self._uploaded
        self.objects.upload(
            [Upload(snapshot / new[sha], f"{self.below}/{sha}", sha) for sha in sorted(changed)]
        )
        manifest = PartialManifest(saved=_newest(snapshot), files=files)
        self.objects.put(f"{self.below}/{MANIFEST}", manifest.model_dump_json().encode())
        self.objects.delete(f"{self.below}/{sha}" for sha in self._uploaded - new.keys())
        self._uploaded = set(new)

    def _manifest(self) -> PartialManifest | None:
        data = self.objects.get(f"{self.below}/{MANIFEST}")
        try:
            return None if data is None else PartialManifest.model_validate_json(data)
        except ValidationError as error:
            raise PedfracError(f"{self._url}/{MANIFEST}: is no manifest ({error})") from None

    def _fetch(self, manifest: PartialManifest, target: Path) -> None:
        """Download a copy whole. Raises PedfracError where a file is missing or another."""
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        objects = {f"{self.below}/{e.sha256}": target / e.sha256 for e in manifest.files.values()}
        self.objects.download(objects)
        for name, entry in manifest.files.items():
            if not entry.fits(target / entry.sha256):
                raise PedfracError(f"{self._url}: {name} is missing or damaged")
        for name, entry in manifest.files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target / entry.sha256, target / name)
            os.utime(target / name, (manifest.saved, manifest.saved))
        for path in objects.values():
            path.unlink()

    def _drop_pending(self) -> None:
        if self._pending is not None:
            shutil.rmtree(self._pending, ignore_errors=True)


def discard(objects: Objects, key: str) -> None:
    """Remove the remote copy of what was published under a key meanwhile, manifest first."""
    below = _below(key)
    objects.delete([f"{below}/{MANIFEST}"])
    objects.delete([found.name for found in objects.listing(f"{below}/")])


def _below(key: str) -> str:
    return f".partial/{key}"


def _linked(folder: Path, target: Path) -> Path:
    """Return a folder of hard links, which keep the files as they are when those are replaced."""
    shutil.rmtree(target, ignore_errors=True)
    for path in _files(folder):
        link = target / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, link)
    return target


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _newest(folder: Path) -> float:
    """Return the modification time of the newest file of a folder, minus infinity if empty."""
    return max((path.stat().st_mtime for path in _files(folder)), default=-float("inf"))
