"""Images found in folders: links followed once, and whatever is left out said with its reason.

Not here: what is in the files that are found (images).
"""

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from pedfrac.errors import printable
from pedfrac.imaging import jpeg, png
from pedfrac.imaging.dicom import SUFFIXES

IMAGES = (".png", ".jpg", ".jpeg")
LeftOut = MutableMapping[str, str]
"""Reason by the path of what is left out; a reason tells of no patient."""

# What lies beside images and is none; every other file that is not scored is counted.
_BESIDE = {
    *(".txt", ".csv", ".json", ".xml", ".yaml", ".yml", ".md", ".html", ".parquet", ".log"),
    *(".ini", ".db", ".py", ".lock"),
}
_BEGINNINGS = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "ZIP",
    b"BZh": "bzip2",
    b"7z\xbc\xaf": "7z",
    b"\xfd7zXZ": "xz",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"%PDF": "PDF",
}


def files_below(top: Path, left_out: LeftOut) -> Iterator[Path]:
    """Yield the files that are images, or say by their suffix or first bytes that they are.

    Links to folders and files are followed, each folder and file once. Named in ``left_out``:
    folders and files that cannot be read, links to nothing, and files of other formats.
    """
    links: list[Path] = []
    real: set[str] = set()
    for path in _walk(str(top), left_out):
        if path.is_symlink():
            links.append(path)
        elif is_image(path, left_out):
            real.add(os.path.realpath(path))
            yield path
    for path in links:
        if (target := os.path.realpath(path)) not in real and is_image(path, left_out):
            real.add(target)
            yield path


def _walk(top: str, left_out: LeftOut) -> Iterator[Path]:
    folders, links, seen = [top], list[str](), set[str]()
    while folders or links:
        # links last, so that a folder is searched under its own name where it has one here
        folder = folders.pop() if folders else links.pop(0)
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            left_out[printable(folder)] = f"folder cannot be read ({error.strerror})"
            continue
        for entry in entries:
            kind = _kind_of(entry)
            if kind == "folder":
                (links if entry.is_symlink() else folders).append(entry.path)
            elif kind == "file":
                yield Path(entry.path)
            else:
                left_out[printable(entry.path)] = kind


def _kind_of(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError as error:  # a link to itself, or to where it may not be followed
        return f"link cannot be followed ({error.strerror})"
    return "link to nothing" if entry.is_symlink() else "not a file"


def is_image(path: Path, left_out: LeftOut, name: str = "") -> bool:
    """Return whether a file is an image; if not, and it does not just lie beside, name it.

    ``name`` is what it is called, where that is not its path.
    """
    suffix = path.suffix.lower()
    # a directory of media is what a folder of DICOM files comes with, not an image that is missing
    if path.name == "DICOMDIR":
        return False
    if suffix in (*IMAGES, *SUFFIXES):
        return True
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        left_out[name or printable(str(path))] = f"cannot be read ({error.strerror})"
        return False
    if head[128:] == b"DICM" or (not suffix and head.startswith((png.SIGNATURE, jpeg.SIGNATURE))):
        return True
    if reason := _format(head, suffix):
        left_out[name or printable(str(path))] = reason
    return False


def _format(head: bytes, suffix: str) -> str:
    """Return why a file is no image that is read; empty where it is none that lies beside them."""
    for beginning, name in _BEGINNINGS.items():
        if head.startswith(beginning):
            return f"{name} is not read"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP is not read"
    if head[4:8] == b"ftyp":
        return "HEIF, AVIF or a video is not read"
    return other_format(suffix)


def other_format(suffix: str) -> str:
    """Return why a file of a suffix is left out; empty for what lies beside images."""
    return "" if suffix.lower() in _BESIDE else "another format"
