"""The input data, in a folder or in object storage, whose objects are mirrored into the cache.

What the files say is read elsewhere (records); here is only where they lie and whether they are
still the same.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from pedfrac.config.data import DataConfig
from pedfrac.data import layout
from pedfrac.errors import PedfracError
from pedfrac.storage.files import content_hash
from pedfrac.storage.uri import is_remote

if TYPE_CHECKING:
    from pedfrac.storage.s3_client import Objects
_SECOND, _MICROSECOND = 1_000_000_000, 1_000  # nanoseconds
_IMAGES = re.compile(r"images[^/]*/[^/]+$")


@dataclass(frozen=True)
class InputFile:
    """An object of the data set as listed; foreign objects carry no SHA-256."""

    size: int
    identity: str
    modified: datetime

    def fits(self, path: Path) -> bool:
        """Return whether a file was fetched as this object and dated so."""
        if not path.is_file():
            return False
        status = path.stat()
        return (status.st_size, status.st_mtime_ns) == (self.size, self._time)

    def date(self, path: Path) -> None:
        """Give the file that was fetched the time of this object."""
        os.utime(path, ns=(self._time, self._time))

    @property
    def _time(self) -> int:
        """Nanoseconds since 1970: the second of the last change, and a fraction from the identity.

        Servers report whole seconds, in which an object may be replaced by one of equal size. The
        fraction is in microseconds, because some file systems keep no finer times.
        """
        fraction = crc32(self.identity.encode()) * _MICROSECOND % _SECOND
        return int(self.modified.timestamp()) * _SECOND + fraction


def origin(config: DataConfig) -> str:
    """Return the name of a data root that is the same on all machines that see it."""
    return _objects(config).url() if is_remote(config.root) else str(Path(config.root).resolve())


def fingerprint(config: DataConfig) -> dict[str, str]:
    """Return the fingerprint of the dataset, without fetching or opening its files."""
    if not is_remote(config.root):
        return layout.fingerprint(config)
    files = _listing(config)
    return {
        "objects": content_hash([[name, file.size, file.identity] for name, file in files.items()])
    }


def fetched(config: DataConfig) -> DataConfig:
    """Return the configuration with a local root, fetching what is new or changed since last time.

    Without ``images`` only the table is fetched.
    """
    if not is_remote(config.root):
        return config
    folder = _mirror(_objects(config), _listing(config), config.images)
    return config.model_copy(update={"root": str(folder)})


def fetched_below(url: str, wanted: Callable[[str], bool]) -> dict[str, tuple[Path, str]]:
    """Fetch the objects below a prefix whose names are wanted, or the one object of this address.

    Returns a path here, and what changes when the object does, by each one's address.
    """
    from pedfrac.storage.s3_client import Objects

    objects, selection = Objects(url), "images"
    found = [one for one in objects.listing() if wanted(one.name)]
    if not found and "/" in url.removeprefix("s3://").rstrip("/"):
        above, _, selection = url.rstrip("/").rpartition("/")
        objects = Objects(above)
        found = [one for one in objects.listing(selection) if one.name == selection]
    files = {one.name: InputFile(one.size, one.etag, one.modified) for one in found}
    if not files:
        return {}
    folder = _mirror(objects, files, selection)
    return {objects.url(name): (folder / name, one.identity) for name, one in files.items()}


def _mirror(objects: "Objects", files: Mapping[str, InputFile], selection: object) -> Path:
    """Fetch what is new or changed of files into the cache; return the folder where they lie."""
    from pedfrac.storage.node_cache import cache_of_environment

    cache = cache_of_environment()
    entry = f"inputs/{content_hash([objects.endpoint, objects.url(), selection])[:16]}"

    def download(targets: Mapping[str, Path], done: Callable[[str], None]) -> None:
        def dated(name: str) -> None:
            files[name].date(targets[name])
            done(name)

        objects.download(targets, dated)

    if broken := cache.fetch(entry, files, download):
        raise PedfracError(
            f"{objects.url(broken[0])}: changed while it was fetched"
            + (f", as {len(broken) - 1} more" if len(broken) > 1 else "")
        )
    return cache.path(entry)


def _objects(config: DataConfig) -> "Objects":
    from pedfrac.storage.s3_client import Objects  # boto3 is needed by those alone who use S3

    return Objects(config.root)


def _listing(config: DataConfig) -> dict[str, InputFile]:
    """Return the objects that belong to the data set, by name."""
    objects = _objects(config)
    parts = [layout.CSV_NAME]
    if config.images:
        parts += ["images", *(f"{folder}/" for folder in layout.LABEL_FOLDERS)]
    files = {
        found.name: InputFile(found.size, found.etag, found.modified)
        for part in parts
        for found in objects.listing(part)
        if part != "images" or _IMAGES.match(found.name)
    }
    if layout.CSV_NAME not in files:
        raise PedfracError(
            f"{objects.url(layout.CSV_NAME)}: is missing; data.root must be the prefix of it"
        )
    return files
