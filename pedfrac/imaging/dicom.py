"""DICOM radiographs read: a grey image, its age, side and view; whatever else, refused by name.

Names and birth dates are not kept, and the patient's number only in memory, to know images of one
patient: of the header only the elements in ``_HEADER`` are read. Not here: what becomes of the
pixels (pixels), and DICOM that is written (dicom_output).
"""

import logging
import re
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom import config as pydicom_config
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder, pixel_array
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pedfrac.errors import PedfracError

# Once for the process, as it holds for all its threads: a warning of a value that breaks DICOM's
# rules quotes it: where a length is damaged, a whole header with the patient's name.
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE

# What it logs is in the refusals here, in one line.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
MODALITIES = {
    "CR": "computed radiography",
    "DX": "digital radiography",
    "RG": "image and screen",
}
WRIST = ("WRIST", "WRISTJOINT", "CARPUS")

# What a wrist is often filed under; such an image is scored, and the note says what it was called.
NEAR_WRIST = (
    *("HAND", "HANDWRIST", "WRISTHAND", "FOREARM", "LOWERARM", "ARM", "UPPERLIMB"),
    *("UPPEREXTREMITY", "RADIUS", "ULNA", "RADIUSULNA", "RADIUSANDULNA"),
)
SUFFIXES = (".dcm", ".dicom", ".ima")
MAX_PIXELS = 100_000_000  # of an image; the largest detectors have about 15 million
DAYS_PER_YEAR = 365.25
PER_YEAR = {"D": DAYS_PER_YEAR, "W": DAYS_PER_YEAR / 7, "M": 12}
_VIEWS = {"AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "LAT", "LATERAL", "OBL", "OBLIQUE"}
_VIEW_CODES = {  # SNOMED CT, of the context group "DX View" (CID 4010)
    "399348003": "AP",
    "272479007": "PA",
    "399067008": "LATERAL",
    "399173006": "LL",
    "399198007": "RL",
    "399182000": "OBLIQUE",
}
_PIXELS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
]
_HEADER = [
    *("SOPClassUID", "Modality", "PresentationIntentType", "BurnedInAnnotation"),
    *("PatientAge", "PatientBirthDate", "StudyDate", "BodyPartExamined", "AnatomicRegionSequence"),
    *("ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence"),
    *("PatientSex", "PatientID"),
    *_PIXELS,
]

# One decoder for each syntax where several are installed: the strictest and fastest of them.
_DECODERS = {
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
}
_END_OF_PIXELS = b"\xfe\xff\xdd\xe0\0\0\0\0"
_END_OF_CODE = b"\xff\xd9"  # of a JPEG, JPEG-LS or JPEG 2000
_PADDING = 16  # bytes that writers may add to a code; none holds its end before its end
_TAIL = 2**20  # bytes at the end of a file that hold the end of its pixels
_REGIONS = {  # SNOMED CT and, in older files, SNOMED RT
    "74670003": "WRIST JOINT",
    "T-15460": "WRIST JOINT",
    "8205005": "WRIST",
    "T-D8600": "WRIST",
    "85562004": "HAND",
    "T-D8700": "HAND",
    "14975008": "FOREARM",
    "T-D8500": "FOREARM",
    "53120007": "UPPER LIMB",
    "T-D8000": "UPPER LIMB",
    "62413002": "RADIUS",
    "T-12420": "RADIUS",
    "23416004": "ULNA",
    "T-12430": "ULNA",
    "110535000": "RADIUS AND ULNA",
    "T-12403": "RADIUS AND ULNA",
}
_DIRECTORY = UID("1.2.840.10008.1.3.10")
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_SIDES = {"LEFT", "RIGHT", "L", "R", "LT", "RT"}


@dataclass(frozen=True, eq=False)
class Radiograph:
    """An image as a DICOM file holds it: pixels (height,width) of 16 bits, bright where bone is.

    ``age`` in years, NaN where it is not known; ``whole_years`` says that it was given in whole
    years, so that it may be nearly one more. ``laterality``: L, R or empty. ``note`` says what a
    reader of the score should know. ``sex``: M, F, O or empty. ``patient`` is the number, and
    never shown or written.
    """

    pixels: NDArray[np.uint16]
    age: float
    whole_years: bool
    laterality: str
    view: str
    note: str
    sex: str = ""
    patient: str = field(default="", repr=False)


def is_dicom(path: Path) -> bool:
    """Return whether a file is, or by its name should be, a DICOM file."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_radiograph(path: Path) -> Radiograph:
    """Read a radiograph; raise PedfracError that says why a file is none, or none of a wrist.

    Pixels: rescale or modality table, then window or VOI table (the first, where there are
    several), then MONOCHROME1 inverted, and stretched from the darkest to the brightest pixel to
    16 bits, as all images of GRAZPEDWRI-DX are. Padding becomes black.
    """
    try:
        return _read(path)
    except PedfracError:
        raise
    except InvalidDicomError:
        raise PedfracError(f"{path}: is no DICOM file (no DICM at byte 128)") from None
    except OSError as error:
        reason = error.strerror or "it ends too early"
        raise PedfracError(f"{path}: cannot be read ({reason})") from None
    # Each part of a damaged header lets pydicom fail in a way of its own, where it is first used;
    # what it says then may hold a patient's name.
    except Exception as error:
        raise PedfracError(f"{path}: damaged DICOM header ({type(error).__name__})") from None


def _read(path: Path) -> Radiograph:
    tags: list[Any] = list(_HEADER)
    header = dcmread(path, stop_before_pixels=True, specific_tags=tags)
    notes = _refuse_foreign(path, header)
    _refuse_shape(path, header)
    age, whole_years, age_note = _age(header)
    return Radiograph(
        pixels=_display(path, header, _decode(path, header)),
        age=age,
        whole_years=whole_years,
        laterality=_laterality(header),
        view=_view(header),
        note="; ".join(note for note in (*notes, age_note) if note),
        sex=_sex(header),
        patient=_text(header, "PatientID"),
    )


def _refuse_foreign(path: Path, header: Dataset) -> list[str]:
    """Refuse what is no finished radiograph of a wrist; return what is to be noted of the rest."""
    if header.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        raise PedfracError(f"{path}: is a directory of DICOM media (DICOMDIR), not an image")
    if (modality := _text(header, "Modality")) not in MODALITIES:
        raise PedfracError(
            f"{path}: modality {_shown(modality)}; allowed are {', '.join(MODALITIES)}"
        )
    if _text(header, "PresentationIntentType") == "FOR PROCESSING":
        raise PedfracError(f"{path}: raw detector image (FOR PROCESSING); use the one for display")
    part = _body_part(header)
    place = "".join(word for word in re.findall(r"[A-Z]+", part) if word not in _SIDES)
    if part and place not in (*WRIST, *NEAR_WRIST):
        allowed = ", ".join((*WRIST, *NEAR_WRIST))
        raise PedfracError(
            f"{path}: body part {_shown(part)}; allowed are {allowed}, or none stated"
        )
    burnt = _text(header, "BurnedInAnnotation") == "YES"
    return [
        "" if place in WRIST else f"body part {part}" if place else "body part not stated",
        "annotation burnt into the pixels" if burnt else "",
    ]


def _refuse_shape(path: Path, header: Dataset) -> None:
    """Refuse, before anything is decoded, what is not one grey picture of a sensible size."""
    rows, columns, frames = (
        _number(path, header, name) for name in ("Rows", "Columns", "NumberOfFrames")
    )
    if frames is not None and frames != 1:
        raise PedfracError(f"{path}: {frames} frames; only single images are scored")
    if not rows or not columns:
        raise PedfracError(f"{path}: holds no pixels")
    if rows * columns > MAX_PIXELS:
        raise PedfracError(f"{path}: {rows} x {columns} pixels; at most {MAX_PIXELS:,} are read")
    samples, bits = (_number(path, header, name) for name in ("SamplesPerPixel", "BitsAllocated"))
    photometric = _text(header, "PhotometricInterpretation")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise PedfracError(
            f"{path}: {samples} samples a pixel, photometric interpretation {_shown(photometric)}; "
            "allowed is 1, MONOCHROME1 or MONOCHROME2"
        )
    if bits not in (8, 16):
        raise PedfracError(f"{path}: {bits} bits a pixel; allowed are 8 and 16")


def _decode(path: Path, header: Dataset) -> NDArray[Any]:
    """Return the stored values (rows,columns)."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise PedfracError(f"{path}: names no transfer syntax")
    try:
        if not get_decoder(syntax).is_available:
            raise PedfracError(f"{path}: no decoder for transfer syntax {syntax.name} is installed")
    except NotImplementedError:
        raise PedfracError(
            f"{path}: transfer syntax {_shown(syntax.name)} is none of a single image"
        ) from None
    if syntax.is_encapsulated:
        _refuse_unfinished(path, syntax)
    try:
        stored = pixel_array(path, raw=True, decoding_plugin=_DECODERS.get(syntax, ""))
    except AttributeError:
        raise PedfracError(f"{path}: holds no pixels") from None
    except Exception as error:  # each decoder has errors of its own
        reason = " ".join(str(error).split())[:200]
        raise PedfracError(
            f"{path}: pixels are truncated, damaged or not in {syntax.name}, as stated ({reason})"
        ) from None
    if stored.shape != (header.Rows, header.Columns):
        raise PedfracError(
            f"{path}: pixels of shape {stored.shape}, but the header says "
            f"({header.Rows}, {header.Columns})"
        )
    return stored


def _refuse_unfinished(path: Path, syntax: UID) -> None:
    """Refuse compressed pixels without their end: decoders fill up what is missing, in silence."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        pixels, end, _ = file.read().rpartition(_END_OF_PIXELS)
    if not end:
        raise PedfracError(f"{path}: pixels are truncated (no end of their sequence)")
    if syntax != RLELossless and _END_OF_CODE not in pixels[-_PADDING:]:
        raise PedfracError(f"{path}: pixels are truncated (no end of the {syntax.name})")


def _display(path: Path, header: Dataset, stored: NDArray[Any]) -> NDArray[np.uint16]:
    """Return stored values as they are meant to be seen, in 16 bits."""
    try:
        values = apply_voi_lut(apply_modality_lut(stored, header), header)
    except Exception as error:  # whatever a nonsensical table or window leads to
        raise PedfracError(
            f"{path}: rescale, window or table cannot be applied ({error})"
        ) from None
    image = values.astype(np.float64)
    seen = ~_padding(header, stored)
    low, high = (image[seen].min(), image[seen].max()) if seen.any() else (0.0, 0.0)
    if not (np.isfinite([low, high]).all() and high > low):
        raise PedfracError(f"{path}: the image shows nothing, its pixels are all alike")
    image = (image - low) * (65535 / (high - low))
    if header.PhotometricInterpretation == "MONOCHROME1":
        image = 65535 - image
    return np.where(seen, np.rint(image), 0).astype(np.uint16)


def _padding(header: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_]:
    if (value := header.get("PixelPaddingValue")) is None:
        return np.zeros(stored.shape, bool)
    limit = header.get("PixelPaddingRangeLimit")
    ends = sorted((int(value), int(value if limit is None else limit)))
    return (stored >= ends[0]) & (stored <= ends[1])


def _age(header: Dataset) -> tuple[float, bool, str]:
    """Return the age in years, whether it is given in whole years, and a note where it is unknown.

    Dates come first, since an age in whole years may be too low by nearly one. They are cut to
    tenths: no bound in tenths is crossed, and no birth date can be told from age and study date.
    """
    by_dates = _years_between(_text(header, "PatientBirthDate"), _text(header, "StudyDate"))
    stated, whole = _stated_age(_text(header, "PatientAge"))
    if by_dates is not None and stated is not None and abs(by_dates - stated) > 1.1:
        return float("nan"), False, "age unknown: PatientAge contradicts the dates"
    if by_dates is not None:
        return by_dates, False, ""
    if stated is not None:
        return stated, whole, ""
    return float("nan"), False, "age not stated"


def _years_between(birth: str, study: str) -> float | None:
    """Return years in tenths, a new one from each birthday on; None where a date is missing."""
    born, then = _date(birth), _date(study)
    if born is None or then is None:
        return None
    years = then.year - born.year - ((then.month, then.day) < (born.month, born.day))
    days = (then - born).days - round(years * DAYS_PER_YEAR)
    tenths = min(9, max(0, int(days * 10 / DAYS_PER_YEAR)))
    return years + tenths / 10 if 0 <= years <= 120 else None


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text.replace(".", ""), "%Y%m%d").date()
    except ValueError:
        return None


def _stated_age(text: str) -> tuple[float | None, bool]:
    found = _AGE.fullmatch(text)
    if found is None:
        return None, False
    number, unit = int(found[1]), found[2]
    if unit == "Y":
        return (float(number), True) if number <= 120 else (None, False)
    return int(number * 10 / PER_YEAR[unit]) / 10, False


def _body_part(header: Dataset) -> str:
    """Return the body part as the header calls it, in upper case; empty where it does not say."""
    if part := _text(header, "BodyPartExamined"):
        return part
    region = header.get("AnatomicRegionSequence") or [Dataset()]
    code = _text(region[0], "CodeValue")
    return _REGIONS.get(code, code)


def _laterality(header: Dataset) -> str:
    side = _text(header, "ImageLaterality") or _text(header, "Laterality")
    return side if side in ("L", "R") else ""


def _sex(header: Dataset) -> str:
    sex = _text(header, "PatientSex")
    return sex if sex in ("M", "F", "O") else ""


def _view(header: Dataset) -> str:
    view = _text(header, "ViewPosition")
    code = header.get("ViewCodeSequence") or [Dataset()]
    return view if view in _VIEWS else _VIEW_CODES.get(_text(code[0], "CodeValue"), "")


def _shown(text: str) -> str:
    """Return a code of the header as a message may show it: where a length is damaged, an element
    reaches into the next one, which may be the patient's name.
    """
    if not text:
        return "not stated"
    return text if re.fullmatch(r"[\w ./()-]{1,64}", text, re.ASCII) else "not readable"


def _text(dataset: Dataset, name: str) -> str:
    """Return an element as upper case text, taken raw: pydicom's warnings would print its value."""
    element = dataset.get_item(name)
    value = b"" if element is None or element.value is None else element.value
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return text.split("\\")[0].strip(" \0").upper()


def _number(path: Path, header: Dataset, name: str) -> int | None:
    try:
        value = header.get(name)
        return None if value is None else int(value)
    except (TypeError, ValueError):
        raise PedfracError(f"{path}: {name} is no number") from None
