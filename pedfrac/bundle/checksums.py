"""Checksums of a bundle's files: SHA256SUMS beside them, which ``sha256sum -c`` reads, too.

Weights of another network of the same shape load without an error: only their content tells.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from pedfrac.errors import PedfracError
from pedfrac.storage.files import file_hash

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def seal(folder: Path, names: Iterable[str]) -> None:
    """Write the checksums of some files of a bundle, keeping known checksums of the others."""
    known = _read(folder) if (folder / SUMS).is_file() else {}
    sums = known | {name: file_hash(folder / name) for name in names}
    (folder / SUMS).write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))


def verify(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of some files of a bundle, as sealed.

    A file is read once per process while size, times and inode stay as they are. Raises
    PedfracError that names a file that is missing, was never sealed, or is another than it was.
    """
    sums = _read(folder)
    return {name: _verified(folder / name, sums) for name in names}


def _verified(path: Path, sums: Mapping[str, str]) -> str:
    if not path.is_file():
        raise PedfracError(f"{path}: is missing")
    if path.name not in sums:
        raise PedfracError(f"{path}: is foreign: {SUMS} beside it does not name it")
    try:
        status = path.stat()
        identity = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
        found = _hash_of(path, *identity)
    except OSError as error:
        raise PedfracError(f"{path}: cannot be read ({error.strerror})") from None
    if found != sums[path.name]:
        others = [name for name, digest in sums.items() if digest == found]
        what = f"its content is that of {others[0]}" if others else f"its SHA-256 is {found}"
        raise PedfracError(
            f"{path}: is not the file of this bundle: {what}, {SUMS} says {sums[path.name]}; "
            "copy the bundle again from where it was made"
        )
    return found


@lru_cache(maxsize=1024)
def _hash_of(path: Path, *identity: int) -> str:
    return file_hash(path)


def _read(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise PedfracError(
            f"{folder}: holds no {SUMS}, so its files cannot be told from others; copy the bundle "
            "again from where it was made, or assemble it anew with pedfrac retrain"
        ) from None
    except UnicodeDecodeError as error:
        raise PedfracError(f"{path}: is not UTF-8 ({error})") from None
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line)
        if found is None or found[2] in sums:
            raise PedfracError(
                f"{path} line {number}: {line!r} must be a SHA-256, two spaces and a file name, "
                "each file once"
            )
        sums[found[2]] = found[1]
    return sums
