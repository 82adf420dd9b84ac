"""Scores as DICOM, for the study they belong to: a structured report and a picture with its heat.

Both carry the patient and study of their source, as DICOM asks; both say that they are for
research. Not here: reading of DICOM (dicom), the maps (heat_maps).
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import highdicom as hd
import numpy as np
import pandas as pd
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from pedfrac.bundle.bundle import Bundle
from pedfrac.config.evaluation import ExplanationConfig
from pedfrac.errors import PedfracError
from pedfrac.explanation.overlays import HEAT
from pedfrac.explanation.saliency import METHOD_NAMES
from pedfrac.imaging.letterbox import Placement
from pedfrac.serving.heat_maps import maps_of_group
from pedfrac.serving.images import PreparedImage
from pedfrac.serving.prediction import CODE
from pedfrac.storage.code_version import code_digest, code_version

logger = logging.getLogger(__name__)
DISCLAIMER = "Research use, not for diagnosis"
SCHEME = "99PEDFRAC"  # of codes that no public scheme has
PROBABILITY = CodedConcept("probability", SCHEME, "Calibrated probability of a fracture")
THRESHOLD = CodedConcept("threshold", SCHEME, "Probability from which a fracture is called")
INTENDED_USE = CodedConcept("use", SCHEME, "Intended use")
RESEARCH = CodedConcept("research", SCHEME, DISCLAIMER)
MARKERS = CodedConcept("markers", SCHEME, "Side markers in the image")
FRACTURE = CodedConcept("125605004", "SCT", "Fracture of bone")
WRIST = CodedConcept("8205005", "SCT", "Wrist")
RADIOGRAPHY = CodedConcept("363680008", "SCT", "Radiographic imaging procedure")
VERDICTS = {
    "fractured": CodedConcept("52101004", "SCT", "Present"),
    "normal": CodedConcept("2667000", "SCT", "Absent"),
    "left to a reader": CodedConcept("82334004", "SCT", "Indeterminate"),
}
SIDES = {
    "L": CodedConcept("7771000", "SCT", "Left"),
    "R": CodedConcept("24028007", "SCT", "Right"),
}
NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")

# Of type 2 in patient and study: written empty where the source lacks them (PS3.5 7.4.3).
MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
SERIES = {"report": 9701, "heat-map": 9702}
PICTURE = 640  # the least side of each half of the picture, in pixels
LINE = 26  # height of a line of text, in pixels


class DicomFolder:
    """A folder with a report and a heat map for each scored DICOM image, named by the image's key.

    ``refused``: images for which none could be written, with the reason.
    """

    def __init__(self, folder: Path, bundle: Bundle, digest: str):
        self.folder, self.bundle, self.digest = folder, bundle, digest
        self.refused: dict[str, str] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PedfracError(f"{folder}: cannot be made ({error.strerror})") from None

    def paths(self, key: str) -> dict[str, Path]:
        """Return where report and heat map of an image lie."""
        return {kind: self.folder / f"{key}-{kind}.dcm" for kind in SERIES}

    def holds(self, key: str) -> bool:
        """Return whether both files exist."""
        return all(path.is_file() for path in self.paths(key).values())

    def write(self, images: Sequence[PreparedImage], rows: pd.DataFrame) -> None:
        """Write both for the scored DICOM images of a batch; ``rows`` are their scores."""
        scored = [
            (image, row)
            for image, row in zip(images, rows.to_dict("records"), strict=True)
            if image.dicom and not image.error
        ]
        for name, networks_images in _by_group(scored).items():
            maps = maps_of_group(self.bundle, name, [image for image, _ in networks_images])
            for (image, row), heat in zip(networks_images, maps, strict=True):
                self._write_image(image, row, heat)

    def _write_image(
        self, image: PreparedImage, row: dict[Any, Any], heat: NDArray[np.float32]
    ) -> None:
        paths = self.paths(row["key"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote what they warn of: names, birth dates
            try:
                source = dcmread(image.image.path, stop_before_pixels=True)
                if missing := [name for name in NEEDED if not source.get(name)]:
                    raise PedfracError(f"it lacks {', '.join(missing)}")
                for name in MAY_BE_EMPTY:
                    if name not in source:
                        setattr(source, name, "")
                made = {
                    "report": report(source, row, self.digest),
                    "heat-map": picture(source, image, row, heat, self.digest),
                }
                for kind, dataset in made.items():
                    _save(dataset, paths[kind])
            except OSError as error:
                raise PedfracError(f"{self.folder}: cannot be written ({error.strerror})") from None
            except Exception as error:  # what the source holds is not in our hands
                reason = _reason(error)
                self.refused[row["file"]] = reason
                logger.warning("%s: scored, but no DICOM output: %s", row["file"], reason)


def _reason(error: Exception) -> str:
    """Return why there is no output; not what a foreign error says, which may quote a header."""
    if isinstance(error, PedfracError):
        return str(error)
    if isinstance(error, AttributeError) and error.name and tag_for_keyword(error.name):
        return f"it lacks {error.name}"
    return f"its header does not allow it: {type(error).__name__}"


def report(source: Dataset, row: dict[Any, Any], digest: str) -> Dataset:
    """Return the structured report (TID 1500) of a score, in the study of its source image."""
    uids = _uids(source, row, digest, "report")
    finding = generate_uid(entropy_srcs=[uids[1], "finding"])
    group = _measurements(source, row, digest, finding)
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=["pedfrac", digest]),
        name="pedfrac",
        manufacturer_name="pedfrac",
        model_name=f"bundle {digest[:16]}",
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_device_context=hd.sr.ObserverContext(codes.DCM.Device, device)
        ),
        procedure_reported=RADIOGRAPHY,
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    made = hd.sr.EnhancedSR(
        evidence=[source],
        content=content[0],
        series_instance_uid=uids[0],
        series_number=SERIES["report"],
        sop_instance_uid=uids[1],
        instance_number=1,
        manufacturer="pedfrac",
        is_complete=True,
        series_description=f"Fracture score. {DISCLAIMER}",
        **_maker(digest),
    )
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = SCHEME, "pedfrac"
    scheme.CodingSchemeResponsibleOrganization = "pedfrac"
    made.CodingSchemeIdentificationSequence = [scheme]
    return made


def _measurements(
    source: Dataset, row: dict[Any, Any], digest: str, finding: UID
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """Return the measurement group of a score: probability, threshold and verdict."""
    algorithm = hd.sr.AlgorithmIdentification(
        name="pedfrac",
        version=code_version(),
        parameters=[f"bundle sha256 {digest}", f"network {row['network']}", DISCLAIMER],
    )
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=finding, identifier="fracture"),
        finding_type=FRACTURE,
        algorithm_id=algorithm,
        finding_sites=[hd.sr.FindingSite(WRIST, laterality=SIDES.get(row["laterality"]))],
        measurements=[
            hd.sr.Measurement(name=name, value=float(row[column]), unit=codes.UCUM.NoUnits)
            for name, column in ((PROBABILITY, "probability"), (THRESHOLD, "threshold"))
        ],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(name=FRACTURE, value=VERDICTS[row["call"]]),
            hd.sr.QualitativeEvaluation(name=INTENDED_USE, value=RESEARCH),
            hd.sr.QualitativeEvaluation(
                name=MARKERS,
                value=CodedConcept(row["markers"], SCHEME, f"Side markers {row['markers']}"),
            ),
        ],
        source_images=[
            hd.sr.SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID)
        ],
    )


def picture(
    source: Dataset,
    image: PreparedImage,
    row: dict[Any, Any],
    heat: NDArray[np.float32],
    digest: str,
) -> Dataset:
    """Return the secondary capture of an image (S,S) beside the same with its heat (S,S) in 0…1."""
    uids = _uids(source, row, digest, "heat-map")
    made: Any = hd.sc.SCImage.from_ref_dataset(
        source,
        pixel_array=draw(image, row, heat),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=uids[0],
        series_number=SERIES["heat-map"],
        sop_instance_uid=uids[1],
        instance_number=1,
        manufacturer="pedfrac",
        laterality=row["laterality"] or None,
        patient_orientation=("L", "F"),  # demanded here, and set to the source's below
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=f"Heat map. {DISCLAIMER}",
        **_maker(digest),
    )
    made.PatientOrientation = source.get("PatientOrientation") or None
    made.ImageComments = DISCLAIMER
    made.DerivationDescription = (
        f"{METHOD_NAMES[ExplanationConfig().method]} of the fracture network, bundle {digest[:16]}"
    )
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    reference.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(purpose)]
    made.SourceImageSequence = [reference]
    return made


def draw(image: PreparedImage, row: dict[Any, Any], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the image, the image with heat map, and the caption, in colour (height,width,3)."""
    assert image.fracture_image is not None
    window = Placement.of(*image.shape, image.fracture_image.shape[0]).window
    grey = np.repeat(image.fracture_image[window][..., None], 3, axis=2).astype(np.float64)
    colours = HEAT(heat[window])
    opacity = colours[..., 3:]
    heated = grey * (1 - opacity) + 255 * colours[..., :3] * opacity
    both = np.concatenate([grey, heated], axis=1).round().astype(np.uint8)
    scale = max(1, -(-PICTURE // min(both.shape[0], both.shape[1] // 2)))
    both = cv2.resize(both, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    flat = bool(heat.max() == heat.min())
    return np.concatenate([_caption(row, flat, both.shape[1]), both])


def _caption(row: dict[Any, Any], flat: bool, width: int) -> NDArray[np.uint8]:
    seen = "no evidence, the map is flat" if flat else "where it saw evidence"
    lines = [
        DISCLAIMER.upper(),
        f"fracture: probability {row['probability']:.3f}, threshold {row['threshold']:.3f}, "
        f"called {row['call']}",
        f"left: the image as the network sees it; right: {seen}",
    ]
    band = np.zeros((LINE * len(lines) + LINE // 2, width, 3), np.uint8)
    for number, line in enumerate(lines, start=1):
        at, size = (10, number * LINE), min(0.62, 0.62 * width / 1000)
        cv2.putText(band, line, at, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
    return band


def _by_group(
    scored: list[tuple[PreparedImage, dict[Any, Any]]],
) -> dict[str, list[tuple[PreparedImage, dict[Any, Any]]]]:
    groups: dict[str, list[tuple[PreparedImage, dict[Any, Any]]]] = {}
    for image, row in scored:
        groups.setdefault(row["age_group_used"], []).append((image, row))
    return groups


def _maker(digest: str) -> dict[str, Any]:
    return {
        "manufacturer_model_name": "pedfrac",
        "software_versions": f"{code_version()}, bundle {digest[:16]}",
        "device_serial_number": digest[:16],
    }


def _uids(source: Dataset, row: dict[Any, Any], digest: str, kind: str) -> tuple[str, str]:
    """Return series and instance: the same for the same score of the same image."""
    # what the score follows from, and not its last digits, which move with the images beside it
    follows = [repr(row["age"]), row["markers"], row["call"]]
    said = [str(source.SOPInstanceUID), digest, code_digest(CODE), *follows, kind]
    return generate_uid(entropy_srcs=[*said, "series"]), generate_uid(entropy_srcs=said)


def _save(dataset: Dataset, path: Path) -> None:
    temporary = path.with_suffix(".new")
    dataset.save_as(temporary, enforce_file_format=True)
    temporary.replace(path)
