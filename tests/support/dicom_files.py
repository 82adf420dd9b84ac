"""DICOM files made of pixels, as modalities write them, with a patient whom nobody may tell of."""

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

SECRETS = ("Geheimrat", "Zacharias", "PAT-4711", "20100203", "ACC-0815", "Doktor")


def write_dicom(path: Path, pixels: np.ndarray, syntax: UID = ExplicitVRLittleEndian, **changes):
    """Write a digital radiograph of a wrist; ``changes`` are elements, None removes one."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = DigitalXRayImageStorageForPresentation
    made.SOPInstanceUID, made.StudyInstanceUID = generate_uid(), generate_uid()
    made.SeriesInstanceUID, made.Modality = generate_uid(), "DX"
    made.PatientName, made.PatientID = "Geheimrat^Zacharias", "PAT-4711"
    made.PatientBirthDate, made.StudyDate, made.StudyTime = "20100203", "20200303", "101500"
    made.PatientSex, made.AccessionNumber, made.StudyID = "M", "ACC-0815", "1"
    made.ReferringPhysicianName = "Doktor^Wer"
    made.BodyPartExamined, made.ImageLaterality, made.ViewPosition = "WRIST", "L", "PA"
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = pixels.shape[-2:]
    made.BitsAllocated = made.BitsStored = 8 * pixels.dtype.itemsize
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    made.PixelData = pixels.tobytes()
    for name, value in changes.items():
        if value is None:
            del made[name]
        else:
            setattr(made, name, value)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    if syntax == DeflatedExplicitVRLittleEndian:
        made.file_meta.TransferSyntaxUID = syntax
    elif syntax.is_compressed:
        made.compress(syntax, generate_instance_uid=False)
    made.save_as(path, enforce_file_format=True)
    return path
