"""The node-local cache of object storage: fetched once per node, verified, bounded.

It knows names, sizes and hashes of files; the caller knows where they come from. Safe for several
processes at once, each of which may be killed at any time.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from filelock import FileLock

from pedfrac.errors import PedfracError
from pedfrac.storage.files import content_hash
from pedfrac.storage.manifest import MANIFEST
from pedfrac.storage.verification import Expected, Stamp, notes

logger = logging.getLogger(__name__)
GIGABYTE = 10**9
DEFAULT_GIGABYTES = 100.0
Download = Callable[[Mapping[str, Path], Callable[[str], None]], object]
"""``download(files, done)``: fetch each name to a path and call ``done(name)`` for what came."""


class Cache:
    """A folder of entries, each a folder of files; the least recently used go first.

    An entry that a living process has asked for is never removed: it may have mapped the files.
    """

    def __init__(self, root: Path, bound: float = DEFAULT_GIGABYTES * GIGABYTE):
        self.root, self.bound = root, bound

    def path(self, name: str) -> Path:
        """Return the folder of an entry, such as ``bucket/pack/1f0c…``."""
        return self.root / "entries" / name

    def work(self, name: str) -> Path:
        """Return a folder for unfinished things, beside the entries on the same file system."""
        return self.root / "work" / name

    def fetch(self, name: str, files: Mapping[str, Expected], download: Download) -> list[str]:
        """Fill an entry with these files; return those that fail verification twice.

        Verified files are neither fetched nor hashed again while their size and time are
        unchanged; other files of the entry are removed. When several processes ask at once, one
        fetches and the others wait.
        """
        with _readable_errors(self.root):
            self._hold(name)
            if not self._stamp(name).covers(files):
                with self.locked(name, "fetch"):
                    if not self._stamp(name).covers(files):
                        return self._fetch(name, files, download)
            os.utime(self._stamp(name).path)
            return []

    def adopt(self, name: str, folder: Path, files: Mapping[str, Expected]) -> None:
        """Move a finished folder of this node in as an entry; its files count as verified."""
        with _readable_errors(self.root):
            self._hold(name)
            with self.locked(name, "fetch"):
                path = self.path(name)
                if path.exists():
                    shutil.rmtree(path)
                path.parent.mkdir(parents=True, exist_ok=True)
                self._stamp(name).write(name, files, ())  # known, and so removable, at any moment
                folder.replace(path)
                self._stamp(name).write(name, files, files)
            self.make_room()

    def make_room(self, needed: int = 0, of: str = "") -> None:
        """Remove the least recently used entries until ``needed`` bytes of another fit."""
        with FileLock(self._lock_file("cache", "evict")):
            others = (stamp for stamp in notes(self.root / "stamps") if stamp.name != of)
            stamps = sorted(others, key=lambda stamp: stamp.used)
            held = sum(stamp.size for stamp in stamps)
            for stamp in stamps:
                if held + needed <= self.bound:
                    return
                if self._evict(stamp.name):
                    held -= stamp.size
        if held + needed > self.bound:
            logger.warning(
                "%s: %.1f GB are in use, more than the bound of %.1f GB (PEDFRAC_CACHE_GB)",
                self.root,
                (held + needed) / GIGABYTE,
                self.bound / GIGABYTE,
            )

    def locked(self, name: str, purpose: str) -> FileLock:
        """Return a lock between the processes of this node."""
        return FileLock(self._lock_file(name, purpose))

    def _fetch(self, name: str, files: Mapping[str, Expected], download: Download) -> list[str]:
        sound = self._stamp(name).sound(files)
        missing = {file: one for file, one in files.items() if file not in sound}
        self.make_room(sum(one.size for one in files.values()), of=name)
        self._stamp(name).write(name, files, sound)
        self._remove_others(name, files)
        incoming = self._incoming(name)
        for _ in range(2):  # once more for what was damaged on the way
            if missing:
                shutil.rmtree(incoming, ignore_errors=True)  # left by a killed process
                for file in self._receive(name, incoming, missing, download):
                    del missing[file]
        shutil.rmtree(incoming, ignore_errors=True)
        self._stamp(name).write(name, files, files.keys() - missing.keys())
        return sorted(missing)

    def _receive(
        self, name: str, incoming: Path, files: Mapping[str, Expected], download: Download
    ) -> list[str]:
        """Download files, move those that verify into place and return their names."""
        received = []

        def place(file: str) -> None:
            if not files[file].fits(incoming / file):
                logger.warning("%s: %s did not arrive as it was sent", name, file)
                return
            (final := self.path(name) / file).parent.mkdir(parents=True, exist_ok=True)
            (incoming / file).replace(final)
            received.append(file)

        targets = {file: incoming / file for file in files}
        for target in targets.values():
            target.parent.mkdir(parents=True, exist_ok=True)
        download(targets, place)
        return received

    def _remove_others(self, name: str, files: Mapping[str, Expected]) -> None:
        path = self.path(name)
        for file in path.rglob("*"):
            if file.is_file() and file.relative_to(path).as_posix() not in {*files, MANIFEST}:
                file.unlink()

    def _evict(self, name: str) -> bool:
        """Remove an entry unless a live process holds it; return whether it was removed."""
        with self._lock_file(name, "use").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            # stamp last: an entry half removed is still known, and goes next time
            shutil.rmtree(self.path(name), ignore_errors=True)
            shutil.rmtree(self._incoming(name), ignore_errors=True)
            self._stamp(name).path.unlink(missing_ok=True)
            logger.info("%s: removed %s", self.root, name)
            return True

    def _incoming(self, name: str) -> Path:
        return self.work(f"incoming/{_slug(name)}")

    def _hold(self, name: str) -> None:
        _hold(self._lock_file(name, "use"), os.getpid())

    def _lock_file(self, name: str, purpose: str) -> Path:
        # never removed: a lock on a removed file would keep nobody out
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return locks / f"{_slug(name)}.{purpose}"

    def _stamp(self, name: str) -> Stamp:
        return Stamp(self.root / "stamps" / f"{_slug(name)}.json", self.path(name))


def cache_of_environment() -> Cache:
    """Return the cache that PEDFRAC_CACHE and PEDFRAC_CACHE_GB name, else the user's."""
    root = os.environ.get("PEDFRAC_CACHE") or "~/.cache/pedfrac"
    bound = os.environ.get("PEDFRAC_CACHE_GB") or str(DEFAULT_GIGABYTES)
    try:
        return Cache(Path(root).expanduser().resolve(), float(bound) * GIGABYTE)
    except ValueError:
        raise PedfracError(f"PEDFRAC_CACHE_GB: must be a number, found {bound!r}") from None


@cache
def _hold(path: Path, process: int) -> IO[str]:
    """Hold a shared lock until this process ends, however it ends."""
    lock = path.open("a")
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


@contextmanager
def _readable_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PedfracError(
            f"{root}: the cache cannot be written ({error.strerror or error}); PEDFRAC_CACHE names "
            "another folder, PEDFRAC_CACHE_GB bounds its size"
        ) from error


def _slug(name: str) -> str:
    return content_hash(name)[:32]
