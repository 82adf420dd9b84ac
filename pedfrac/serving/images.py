"""Images to score: found in folders, tables and object storage, read, and prepared for networks.

Networks are applied in prediction.py; DICOM headers are read in pedfrac/imaging/dicom.py.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pedfrac.config.data import Preparation
from pedfrac.data.brought_tables import match_names, read_brought_table, refuse_repeated
from pedfrac.data.labels import read_boxes
from pedfrac.data.schema import CLASSES
from pedfrac.errors import PedfracError, printable
from pedfrac.imaging.boxes import yolo_to_xyxy
from pedfrac.imaging.content import refuse_empty
from pedfrac.imaging.decoding import as_grey, decode
from pedfrac.imaging.dicom import SUFFIXES, is_dicom, read_radiograph
from pedfrac.imaging.image_statistics import image_statistics
from pedfrac.imaging.letterbox import letterbox
from pedfrac.imaging.markers import remove_markers
from pedfrac.serving.image_search import (
    IMAGES,
    LeftOut,
    files_below,
    is_image,
    other_format,
)
from pedfrac.storage.files import file_stamp
from pedfrac.storage.uri import is_remote

TEXT = CLASSES.index("text")
NAN = float("nan")


class NoImage(PedfracError):
    """There is no image where some were to be."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image to score: its file, the age in years if known, and where its YOLO labels may be.

    The file as text takes a third of the memory, which counts where images are many.
    ``name`` is what outputs call it, where that is not the path; ``version`` is another where the
    file's content is another. ``patient`` tells images of one patient, and is not written.
    """

    file: str | Path
    age: float = NAN
    label_folder: Path | None = None
    name: str = ""
    version: str = ""
    patient: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.name or str(self.file)

    @property
    def path(self) -> Path:
        """Its file."""
        return Path(self.file)

    @property
    def labels(self) -> Path | None:
        """The file of its YOLO labels, None where there is none."""
        file = self.label_folder and self.label_folder / f"{self.path.stem}.txt"
        return file if file and file.is_file() else None


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image prepared for the networks, uint8 (size,size), or the ``error`` that prevented it.

    ``age`` in years, NaN if unknown; ``whole_years`` where it may be nearly one more. ``shape`` is
    the image's own (height,width), ``statistics`` (7,) those of ``image_statistics``; ``note`` says
    what a reader of the score should know; ``markers`` whether side markers were removed, none
    found, or left for want of labels; ``patient`` is not to be written anywhere.
    """

    image: Image
    fracture_image: NDArray[np.uint8] | None = None
    age_image: NDArray[np.uint8] | None = None
    shape: tuple[int, int] = (0, 0)
    statistics: NDArray[np.float64] | None = None
    age: float = NAN
    whole_years: bool = False
    sex: str = ""
    laterality: str = ""
    view: str = ""
    patient: str = field(default="", repr=False)
    note: str = ""
    markers: str = "left"
    dicom: bool = False
    error: str = ""


def find_images(
    given: Sequence[str | Path],
    ages: Mapping[str, float] | None = None,
    labels: Path | None = None,
    left_out: LeftOut | None = None,
) -> list[Image]:
    """Return the images that are given, in order of their names.

    ``given``: files, folders (searched through), tables (CSV with the column ``file``, relative to
    the table, and perhaps ``age`` and ``patient``) and prefixes such as ``s3://bucket/images``,
    which are fetched into the cache. In folders images are told by their suffix, or by what DICOM
    files begin with. ``ages`` are years by name (see ``match_names``) and come before those of a
    table; ``labels`` is a folder of YOLO labels whose boxes of text are taken out of the images as
    in training. ``left_out`` takes what lies in the folders and is not scored, with the reason.
    Raises NoImage where there is none, and PedfracError where images share an age or a label file.
    """
    if labels is not None and not labels.is_dir():
        raise PedfracError(f"{labels}: no such folder of labels")
    left_out = {} if left_out is None else left_out
    found = {str(image.file): image for one in given for image in _images_of(one, left_out)}
    if not found:
        others = "".join(f"; {name}: {reason}" for name, reason in islice(left_out.items(), 3))
        raise NoImage(
            f"{', '.join(map(str, given))}: no image found; allowed are "
            f"{', '.join((*IMAGES, *SUFFIXES))}, and DICOM files without a suffix{others}"
        )
    years = match_names(ages, list(found), "ages") if ages else {}
    repeated = _repeated_stems(found.values()) if labels is not None else set()
    return [
        _complete(found.pop(name), years.get(name, NAN), _label_folder(name, labels, repeated))
        for name in sorted(found)
    ]


def _repeated_stems(images: Iterable[Image]) -> set[str]:
    counts = Counter(image.path.stem for image in images)
    return {stem for stem, count in counts.items() if count > 1}


def _label_folder(image: str, labels: Path | None, repeated: Container[str]) -> Path | None:
    """Return the folder of an image's label file: where stems repeat, one called as the image's.

    Raises PedfracError where images share a label file, which can be that of one of them only.
    """
    if labels is None:
        return None
    path = PurePosixPath(image)
    own = labels / path.parent.name
    if (own / f"{path.stem}.txt").is_file():
        return own
    shared = labels / f"{path.stem}.txt"
    if path.stem in repeated and shared.is_file():
        raise PedfracError(
            f"{shared}: may be that of {image} or of another image called {path.stem}; put it into "
            f"a folder there that is called as the image's, such as {own}"
        )
    return labels


def read_ages(path: Path) -> dict[str, float]:
    """Read ages in years by name from a CSV with the columns ``filestem`` and ``age``.

    Images that are called alike are named by the end of their path, such as ``b/1``.

    An empty age means unknown. Raises PedfracError naming the line of an age that is no number.
    """
    table = read_brought_table(path, ("filestem", "age"))
    refuse_repeated(path, table, "filestem")
    return dict(zip(table["filestem"], _years(path, table), strict=True))


def prepare_image(image: Image, fracture: Preparation, age: Preparation) -> PreparedImage:
    """Read an image and prepare it for both kinds of network; a fault becomes its ``error``."""
    try:
        return _prepare(image, fracture, age)
    except PedfracError as error:
        return PreparedImage(
            image, age=image.age, error=str(error).replace(printable(str(image.path)), str(image))
        )


def text_boxes(labels: Path | None, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the boxes of burnt-in text (n, 4) xyxy in pixels that a YOLO file gives an image.

    Raises PedfracError for whatever would be an issue of a label file of the data set.
    """
    if labels is None:
        return np.empty((0, 4))
    height, width = shape[:2]
    boxes, faults = read_boxes(labels, width, height)
    if faults:
        raise PedfracError(f"{labels}: {faults[0].reason}")
    text = [box[1:] for box in boxes if box[0] == TEXT]
    return yolo_to_xyxy(np.array(text).reshape(-1, 4), width, height)


def _prepare(image: Image, fracture: Preparation, age: Preparation) -> PreparedImage:
    years, more = image.age, dict[str, Any](patient=image.patient)
    if dicom := is_dicom(image.path):
        found = read_radiograph(image.path)
        grey = as_grey(found.pixels)
        if np.isnan(years):
            years, more["whole_years"] = found.age, found.whole_years
        names = ("sex", "laterality", "view", "note")
        more |= {name: getattr(found, name) for name in names}
        more["patient"] = image.patient or found.patient
    else:
        grey = decode(image.path)
    refuse_empty(grey, str(image.path))
    labels = image.labels
    boxes = text_boxes(labels, grey.shape)
    if labels:
        more["markers"] = "removed" if len(boxes) else "none found"
    fracture_image, age_image = _prepared(grey, boxes, fracture, age)
    return PreparedImage(
        image,
        fracture_image,
        age_image,
        shape=(grey.shape[0], grey.shape[1]),
        statistics=image_statistics(fracture_image, (grey.shape[0], grey.shape[1])),
        age=years,
        dicom=dicom,
        **more,
    )


def _prepared(
    grey: NDArray[np.uint8], boxes: NDArray[np.float64], *preparations: Preparation
) -> Iterator[NDArray[np.uint8]]:
    """Yield a decoded image as each preparation has it, markers taken out once for those alike."""
    cleaned: dict[str, NDArray[np.uint8]] = {}
    for one in preparations:
        if one.markers not in cleaned:
            cleaned[one.markers] = remove_markers(grey, boxes, one.markers)
        yield letterbox(cleaned[one.markers], one.size)[0]


def _images_of(given: str | Path, left_out: LeftOut) -> Iterator[Image]:
    if is_remote(given):
        yield from _remote_images(str(given), left_out)
        return
    path = Path(given)
    if path.is_dir():
        yield from (Image(str(own)) for own in files_below(path, left_out))
    elif not path.is_file():
        raise PedfracError(f"{path}: no such file or folder")
    elif path.suffix.lower() == ".csv":
        yield from _listed_images(path)
    else:
        yield Image(str(path))


def _listed_images(table: Path) -> list[Image]:
    rows = read_brought_table(table, ("file",), optional=("age", "patient"))
    years = _years(table, rows) if "age" in rows else np.full(len(rows), NAN)
    for number, name in rows["file"].items():
        if not name or is_remote(name):
            raise PedfracError(
                f"{table} line {number}: file {name!r}; allowed is a path here (images in object "
                "storage are given by their prefix)"
            )
    refuse_repeated(table, rows, "file")
    patients = rows["patient"] if "patient" in rows else [""] * len(rows)
    return [
        Image(str(table.parent / name), float(age), patient=patient)
        for name, age, patient in zip(rows["file"], years, patients, strict=True)
    ]


def _remote_images(url: str, left_out: LeftOut) -> Iterator[Image]:
    from pedfrac.data.source import fetched_below

    allowed = {"", *IMAGES, *SUFFIXES}

    def wanted(name: str) -> bool:
        suffix = Path(name).suffix.lower()
        if suffix not in allowed and (reason := other_format(suffix)):
            left_out[f"{url.rstrip('/')}/{name}"] = reason
        return suffix in allowed

    for name, (path, version) in fetched_below(url, wanted).items():
        if is_image(path, left_out, name):
            yield Image(str(path), name=name, version=version)


def _complete(image: Image, years: float, labels: Path | None) -> Image:
    return replace(
        image,
        age=image.age if np.isnan(years) else years,
        label_folder=labels,
        name=image.name
        or ("" if (name := printable(str(image.file))) == str(image.file) else name),
        version=image.version or _version(image.path),
    )


def _version(path: Path) -> str:
    try:
        return "-".join(map(str, file_stamp(path)))
    except OSError:
        return ""  # it is reported when it cannot be read


def _years(path: Path, table: pd.DataFrame) -> NDArray[np.float64]:
    years = pd.to_numeric(table["age"], errors="coerce").to_numpy(dtype=np.float64)
    wrong = (np.isnan(years) | (years < 0) | (years > 120)) & (table["age"] != "").to_numpy()
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        raise PedfracError(
            f"{path} line {table.index[place]}: age {table['age'].iloc[place]!r} is no number of "
            "years 0-120"
        )
    return years
