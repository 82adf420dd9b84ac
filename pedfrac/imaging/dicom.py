"""DICOM radiographs read: a grey image, its age, side and view; whatever else, refused by name.

Names and birth dates are not kept, and the patient's number only in memory, to know images of one
patient: of the header only the elements in ``_HEADER`` are read. Not here: what becomes of the
pixels (dicom_pixels), and DICOM that is written (dicom_output).
"""

import logging
import re
from dataclasses import dataclass, field
from datetime import date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom import config as pydicom_config
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    DigitalIntraOralXRayImageStorageForProcessing,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForProcessing,
)

from pedfrac.errors import PedfracError
from pedfrac.imaging.dicom_elements import shown, text_of
from pedfrac.imaging.dicom_pixels import (
    ELEMENTS,
    decode_pixels,
    displayed,
    refuse_inflating,
    refuse_shape,
)

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
_HEADER = [
    *("SOPClassUID", "Modality", "PresentationIntentType", "BurnedInAnnotation"),
    *("PatientAge", "PatientBirthDate", "StudyDate", "BodyPartExamined", "AnatomicRegionSequence"),
    *("ImageLaterality", "Laterality", "ViewPosition", "ViewCodeSequence"),
    *("PatientSex", "PatientID"),
    "PresentationLUTShape",
    *ELEMENTS,
]

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
_FOR_PROCESSING = {
    DigitalXRayImageStorageForProcessing,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalIntraOralXRayImageStorageForProcessing,
}
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
    """Return what ``radiograph_of`` does of a file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PedfracError(f"{path}: cannot be read ({error.strerror})") from None
    return radiograph_of(data, str(path))


def radiograph_of(data: bytes, file: str) -> Radiograph:
    """Read the bytes of a radiograph; raise PedfracError that says why they are none of a wrist.

    Pixels: rescale or modality table, then window or VOI table (the first, where there are
    several), then MONOCHROME1 inverted, and stretched from the darkest to the brightest pixel to
    16 bits, as all images of GRAZPEDWRI-DX are. Padding becomes black. ``file`` is what the error
    calls it.
    """
    try:
        return _read(data, file)
    except PedfracError:
        raise
    except InvalidDicomError:
        raise PedfracError(f"{file}: is no DICOM file (no DICM at byte 128)") from None
    except EOFError:
        raise PedfracError(f"{file}: cannot be read (it ends too early)") from None
    # Each part of a damaged header lets pydicom fail in a way of its own, where it is first used;
    # what it says then may hold a patient's name.
    except Exception as error:
        raise PedfracError(f"{file}: damaged DICOM header ({type(error).__name__})") from None


def _read(data: bytes, file: str) -> Radiograph:
    refuse_inflating(data, file)
    tags: list[Any] = list(_HEADER)
    header = dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=tags)
    notes = _refuse_foreign(file, header)
    refuse_shape(file, header)
    age, whole_years, age_note = _age(header)
    return Radiograph(
        pixels=displayed(file, header, decode_pixels(data, file, header)),
        age=age,
        whole_years=whole_years,
        laterality=_laterality(header),
        view=_view(header),
        note="; ".join(note for note in (*notes, age_note) if note),
        sex=_sex(header),
        patient=text_of(header, "PatientID"),
    )


def _refuse_foreign(file: str, header: Dataset) -> list[str]:
    """Refuse what is no finished radiograph of a wrist; return what is to be noted of the rest."""
    classes = {header.file_meta.get("MediaStorageSOPClassUID"), header.get("SOPClassUID")}
    if _DIRECTORY in classes:
        raise PedfracError(f"{file}: is a directory of DICOM media (DICOMDIR), not an image")
    if (modality := text_of(header, "Modality")) not in MODALITIES:
        raise PedfracError(
            f"{file}: modality {shown(modality)}; allowed are {', '.join(MODALITIES)}"
        )
    raw = text_of(header, "PresentationIntentType") == "FOR PROCESSING"
    if raw or _FOR_PROCESSING & classes:
        raise PedfracError(f"{file}: raw detector image (FOR PROCESSING); use the one for display")
    part = _body_part(header)
    place = "".join(word for word in re.findall(r"[A-Z]+", part) if word not in _SIDES)
    if part and place not in (*WRIST, *NEAR_WRIST):
        allowed = ", ".join((*WRIST, *NEAR_WRIST))
        raise PedfracError(
            f"{file}: body part {shown(part)}; allowed are {allowed}, or none stated"
        )
    burnt = text_of(header, "BurnedInAnnotation") == "YES"
    return [
        "" if place in WRIST else f"body part {part}" if place else "body part not stated",
        "annotation burnt into the pixels" if burnt else "",
        _polarity_note(header),
    ]


def _polarity_note(header: Dataset) -> str:
    """Return a note where the header contradicts itself on whether bone is bright.

    By PS3.3 C.8.11.3.1.2 INVERSE goes with MONOCHROME1 and IDENTITY with MONOCHROME2.
    """
    shape = text_of(header, "PresentationLUTShape")
    photometric = text_of(header, "PhotometricInterpretation")
    meant = {"INVERSE": "MONOCHROME1", "IDENTITY": "MONOCHROME2"}.get(shape, photometric)
    if meant == photometric:
        return ""
    return f"PresentationLUTShape {shape} contradicts {photometric}, by which the image is read"


def _age(header: Dataset) -> tuple[float, bool, str]:
    """Return years, whether they are whole ones, and a note where they were not to be had.

    Dates come first, since an age in whole years may be too low by nearly one. They are cut to
    tenths: no bound in tenths is crossed, and no birth date can be told from age and study date.
    A birth date that is the study date is what anonymisation writes: it counts only where
    PatientAge says the same.
    """
    birth, study = text_of(header, "PatientBirthDate"), text_of(header, "StudyDate")
    by_dates = _years_between(birth, study)
    stated, whole = _stated_age(text_of(header, "PatientAge"))
    if by_dates is not None and _date(birth) == _date(study) and stated != 0:
        same = "the birth date is the study date, as after anonymisation"
        if stated is None:
            return float("nan"), False, f"age unknown: {same}"
        return stated, whole, f"age by PatientAge: {same}"
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
    if part := text_of(header, "BodyPartExamined"):
        return part
    region = header.get("AnatomicRegionSequence") or [Dataset()]
    code = text_of(region[0], "CodeValue")
    return _REGIONS.get(code, code)


def _laterality(header: Dataset) -> str:
    side = text_of(header, "ImageLaterality") or text_of(header, "Laterality")
    return side if side in ("L", "R") else ""


def _sex(header: Dataset) -> str:
    sex = text_of(header, "PatientSex")
    return sex if sex in ("M", "F", "O") else ""


def _view(header: Dataset) -> str:
    view = text_of(header, "ViewPosition")
    code = header.get("ViewCodeSequence") or [Dataset()]
    return view if view in _VIEWS else _VIEW_CODES.get(text_of(code[0], "CodeValue"), "")
