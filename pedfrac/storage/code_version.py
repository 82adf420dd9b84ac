"""Which code is this: its version and the digest of its files."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pedfrac.storage.files import content_hash, file_hash


def code_version() -> str:
    """Return the version of the installed package."""
    try:
        return version("pedfrac")
    except PackageNotFoundError:
        return "unknown"


def code_digest() -> str:
    """Return the SHA-256 over the domain's files, templates too: what no version number tells."""
    folder = Path(__file__).parents[1]
    files = sorted(path for path in folder.rglob("*.*") if path.is_file())
    sources = (path for path in files if path.suffix != ".pyc")
    return content_hash({str(path.relative_to(folder)): file_hash(path) for path in sources})
