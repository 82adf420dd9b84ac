"""Which code is this: its version, and the digest of the files that a maker uses."""

from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pedfrac.errors import PedfracError
from pedfrac.storage.files import content_hash, file_hash

PACKAGE = Path(__file__).parents[1]
TEMPLATES = "templates"  # folders whose files count for those alone who name them


def code_version() -> str:
    """Return the version of the installed package."""
    try:
        return version("pedfrac")
    except PackageNotFoundError:
        return "unknown"


def code_digest(parts: Iterable[str], package: Path = PACKAGE) -> str:
    """Return the SHA-256 over the files of some parts of pedfrac: what no version number tells.

    A part is a package (``scoring``: its files without templates), a module (``serving.images``)
    or a folder of templates (``reporting.templates``). Raises PedfracError where there is none.
    """
    files = {file for part in parts for file in files_of(part, package)}
    return content_hash(
        {file.relative_to(package).as_posix(): file_hash(file) for file in sorted(files)}
    )


def files_of(part: str, package: Path = PACKAGE) -> Iterator[Path]:
    """Yield the files that count for a part (see ``code_digest``)."""
    folder = package.joinpath(*part.split("."))
    module = folder.with_name(f"{folder.name}.py")
    if module.is_file():
        yield module
    elif folder.is_dir():
        for file in folder.rglob("*.*"):
            inside = file.relative_to(folder).parts[:-1]
            if file.is_file() and file.suffix != ".pyc" and TEMPLATES not in inside:
                yield file
    else:
        raise PedfracError(f"code: pedfrac has no part {part}")
