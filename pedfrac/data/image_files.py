"""Image files: found, checked, hardly any of them decoded, and hashed."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pedfrac.config.data import DataConfig
from pedfrac.data.issues import IssueLog, repeated_values
from pedfrac.data.layout import CSV_NAME, find_image_files, find_left_out
from pedfrac.data.schema import FACT_TYPES
from pedfrac.data.tables import as_table
from pedfrac.errors import PedfracError
from pedfrac.imaging.content import check_content, check_size
from pedfrac.imaging.decoding import decode_whole
from pedfrac.imaging.image_file import ImageFault, read_header

# Bits a pixel below which a PNG is decoded to see whether it shows anything: radiographs of 16 bits
# take 6 to 13, pictures whose pixels are nearly all alike less than 5.
DENSE = 6
AHEAD = 16  # images that wait for each thread
Progress = Callable[[int, int], None]


# ---- images -----------------------------------------------------------------------------------
class ImageFacts(NamedTuple):
    """What is known of an image file without decoding it."""

    width: int
    height: int
    sha256: str


def inspect_image(path: Path) -> ImageFacts:
    """Read an image file once: is it whole, how large is the picture in pixels, its SHA-256.

    Width and height are those of the picture the right way up. Decoded is what has no checksums
    (JPEG), may be in colour, or is so small for its size that it may show nothing. Raises
    ImageFault where the file cannot be used.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageFault("image-unreadable", f"cannot be read ({error.strerror})") from None
    header = read_header(content)
    check_size(header.height, header.width)
    doubtful = 8 * len(content) < DENSE * header.width * header.height
    if not header.chunks or header.coloured or doubtful:
        check_content(decode_whole(content, header))
    return ImageFacts(header.width, header.height, hashlib.sha256(content).hexdigest())


def add_paths(rows: pd.DataFrame, config: DataConfig, ledger: IssueLog) -> pd.DataFrame:
    """Return the rows whose image exists, with its path."""
    files = find_image_files(Path(config.root))
    for stem in sorted(set(files).difference(ledger.stems)):
        reason = f"no row of {CSV_NAME} names this file"
        ledger.note("image-without-row", "image", " ".join(files[stem]), reason, stem)
    for name, reason in find_left_out(Path(config.root)).items():
        ledger.note("image-left-out", "image", name, reason, Path(name).stem)
    _drop_missing(rows, files, config, ledger)
    for line, stem in rows["filestem"].items():
        if len(found := files.get(stem, [])) > 1:
            reason = "the image must have one image file"
            ledger.drop(line, "image-ambiguous", "image", " ".join(found), reason)
    rows = ledger.keep(rows)
    return rows.assign(image=[files[stem][0] for stem in rows["filestem"]])


def find_rows_with_image(table: pd.DataFrame, config: DataConfig) -> pd.DataFrame:
    """Return the rows of a table (filestem) whose image is there, without opening it.

    Raises PedfracError where more are missing than the configuration allows.
    """
    return add_paths(table, config, IssueLog(table["filestem"]))


def _drop_missing(
    rows: pd.DataFrame, files: Container[str], config: DataConfig, ledger: IssueLog
) -> None:
    # not isin(), which makes an object of Arrow's of each name
    missing = rows.loc[[stem not in files for stem in rows["filestem"]], "filestem"]
    if config.missing == "error" and len(missing) > config.missing_allowed:
        raise PedfracError(
            f"{config.root}: {len(missing)} of {len(rows)} images are missing "
            f"({', '.join(missing.head(3))}{' …' if len(missing) > 3 else ''}), "
            f"{config.missing_allowed} allowed; raise data.missing_allowed, "
            "or set data.missing to drop to leave them out by name"
        )
    for line, stem in missing.items():
        ledger.drop(line, "image-missing", "image", stem, "no images*/ folder holds this file")


def inspect_files(
    rows: pd.DataFrame, root: Path, ledger: IssueLog, workers: int, progress: Progress | None
) -> pd.DataFrame:
    """Return the rows whose image is whole, with its size and hash."""
    facts = as_table(_facts_of(rows["image"], root, ledger, workers, progress), FACT_TYPES)
    rows = ledger.keep(rows)
    rows = rows.join(facts.set_index(rows.index))
    _note_same_images(rows, ledger)
    return rows


def _facts_of(
    images: pd.Series, root: Path, ledger: IssueLog, workers: int, progress: Progress | None
) -> Iterator[ImageFacts]:
    """Yield the facts of usable images; the others are recorded as issues."""
    results = _inspect_all(images, root, workers, progress)
    for (line, image), result in zip(images.items(), results, strict=True):
        if isinstance(result, ImageFault):
            ledger.drop(line, result.kind, "image", image, result.reason)
        else:
            yield result


def _inspect_all(
    images: pd.Series, root: Path, workers: int, progress: Progress | None
) -> Iterator[ImageFacts | ImageFault]:
    step = max(1, len(images) // 100)
    for done, result in enumerate(_inspect_ahead(images, root, workers or os.cpu_count() or 1), 1):
        if progress is not None and (done % step == 0 or done == len(images)):
            progress(done, len(images))
        yield result


def _inspect_ahead(
    images: Iterable[str], root: Path, workers: int
) -> Iterator[ImageFacts | ImageFault]:
    # Threads suffice: reading, CRC and SHA-256 all release the interpreter lock.
    waiting: deque[Future[ImageFacts | ImageFault]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for image in images:
            waiting.append(pool.submit(_facts_or_fault, root / image))
            if len(waiting) > AHEAD * workers:  # one for each image would be most of all memory
                yield waiting.popleft().result()
        yield from (one.result() for one in waiting)


def _facts_or_fault(path: Path) -> ImageFacts | ImageFault:
    try:
        return inspect_image(path)
    except ImageFault as fault:
        return fault


def _note_same_images(rows: pd.DataFrame, ledger: IssueLog) -> None:
    """List images whose files are equal: under two patients they would leak across a split."""
    twins = rows[repeated_values(rows["sha256"])]
    first = twins.drop_duplicates("sha256").set_index("sha256")
    row: Any
    for row in twins[twins["sha256"].duplicated()].itertuples():
        other = first.loc[row.sha256]
        whose = "the same" if other["patient_id"] == row.patient_id else "another"
        reason = f"the same bytes as {other['filestem']}, of {whose} patient"
        ledger.note("image-repeated", "image", row.image, reason, row.filestem, row.Index)
