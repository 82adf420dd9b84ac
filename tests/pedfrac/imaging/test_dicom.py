"""DICOM images: what the pixels are meant to look like, how old the patient is, what is refused."""

import warnings
import zlib
from importlib.util import find_spec

import cv2
import gdcm
import numpy as np
import pytest
from dicom_files import SECRETS, write_dicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from pedfrac.errors import PedfracError
from pedfrac.imaging.dicom import is_dicom, read_radiograph

COMPRESSED = [DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless]


def image(seed=0, high=65535, dtype=np.uint16):
    """An image that uses the whole range, since others are stretched to it."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, high, (60, 40), endpoint=True).astype(dtype)
    pixels[0, 0], pixels[0, 1] = 0, high
    return pixels


def pixels_of(path, *arguments, **changes):
    return read_radiograph(write_dicom(path / "a.dcm", *arguments, **changes)).pixels


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, *COMPRESSED], ids=lambda s: s.keyword)
def test_16_bits_arrive_as_they_were_sent(tmp_path, syntax):
    wanted = image()
    assert np.array_equal(pixels_of(tmp_path, wanted, syntax), wanted)
    changes = {"PhotometricInterpretation": "MONOCHROME1"}
    assert np.array_equal(pixels_of(tmp_path, 65535 - wanted, syntax, **changes), wanted)


def transcoded(path, syntax):
    """Compress a file as most digital radiographs are, which pydicom cannot."""
    reader, change, writer = (
        made() for made in (gdcm.ImageReader, gdcm.ImageChangeTransferSyntax, gdcm.ImageWriter)
    )
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()
    return path


@pytest.mark.parametrize(
    "syntax, uid",
    [
        (gdcm.TransferSyntax.JPEGLosslessProcess14_1, "1.2.840.10008.1.2.4.70"),
        (gdcm.TransferSyntax.JPEGLosslessProcess14, "1.2.840.10008.1.2.4.57"),
    ],
)
def test_lossless_jpeg_arrives_as_it_was_sent(tmp_path, syntax, uid):
    wanted = image()
    path = transcoded(write_dicom(tmp_path / "a.dcm", wanted), syntax)
    assert dcmread(path).file_meta.TransferSyntaxUID == uid
    assert np.array_equal(read_radiograph(path).pixels, wanted)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(PedfracError, match="pixels are truncated"):
        read_radiograph(path)


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "JPEGLSNearLossless_16.dcm"])
def test_lossy_images_are_read(tmp_path, name):
    """Images that come with pydicom, of another modality."""
    made = dcmread(get_testdata_file(name, download=False))
    made.Modality, made.BodyPartExamined = "CR", "WRIST"
    made.save_as(tmp_path / "a.dcm")
    found = read_radiograph(tmp_path / "a.dcm").pixels
    assert (found.shape, found.min(), found.max()) == ((made.Rows, made.Columns), 0, 65535)
    stored = made.pixel_array.astype(float)
    assert np.corrcoef(found.ravel(), stored.ravel())[0, 1] > 0.6


def test_8_bits_of_common_jpeg_are_read(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8) * 2
    made = dcmread(write_dicom(tmp_path / "a.dcm", smooth))
    code = cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    made.PixelData = encapsulate([code])
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.save_as(tmp_path / "a.dcm")
    wanted = smooth.astype(float) * 65535 / smooth.max()
    assert np.abs(read_radiograph(tmp_path / "a.dcm").pixels - wanted).max() < 0.03 * 65535


@pytest.mark.skipif(find_spec("libjpeg") is not None, reason="pylibjpeg-libjpeg is installed")
def test_12_bits_of_lossy_jpeg_need_a_decoder_of_their_own(tmp_path, caplog):
    made = dcmread(get_testdata_file("JPEG-lossy.dcm", download=False))
    made.Modality, made.BodyPartExamined = "CR", "WRIST"
    made.save_as(tmp_path / "a.dcm")
    with pytest.raises(PedfracError, match="JPEG Extended .*12-bit precision"):
        read_radiograph(tmp_path / "a.dcm")
    assert not caplog.text


def test_12_bits_are_stretched_to_16(tmp_path):
    stored = image(high=4095)
    found = pixels_of(tmp_path, stored, BitsStored=12, HighBit=11)
    assert np.array_equal(found, np.rint(stored * (65535 / 4095)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(slope=st.floats(0.1, 8), intercept=st.floats(-2000, 2000), signed=st.booleans())
def test_a_rescale_alone_changes_nothing(tmp_path, slope, intercept, signed):
    stored = image(high=30000, dtype=np.int16 if signed else np.uint16)
    plain = pixels_of(tmp_path, stored).astype(int)
    # as decimal strings, which hold 16 characters
    scale = {"RescaleSlope": f"{slope:.6g}", "RescaleIntercept": f"{intercept:.6g}"}
    assert np.abs(pixels_of(tmp_path, stored, **scale) - plain).max() <= 1


@pytest.mark.parametrize("inverted", [False, True])
def test_a_window_clips_what_lies_outside(tmp_path, inverted):
    stored = image()
    changes = {"WindowCenter": [30000, 99], "WindowWidth": [20001, 9]}
    if inverted:
        changes["PhotometricInterpretation"] = "MONOCHROME1"
    found = pixels_of(tmp_path, stored, **changes)
    # PS3.3 C.11.2.1.2.1: linear from c - 0.5 - (w-1)/2 to c - 0.5 + (w-1)/2
    wanted = np.clip((stored - 19999.5) / 20000, 0, 1) * 65535
    assert np.abs(found - (65535 - wanted if inverted else wanted)).max() <= 1
    assert 0.1 < (found == 0).mean() < 0.9


def test_a_table_stands_for_the_window(tmp_path):
    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = (np.arange(256, dtype=np.uint16) ** 2).tobytes()
    stored = image(high=255, dtype=np.uint8)
    found = pixels_of(tmp_path, stored, VOILUTSequence=[table], WindowCenter=9, WindowWidth=9)
    assert np.array_equal(found, np.rint(stored.astype(float) ** 2 * 65535 / 255**2))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_count(tmp_path, photometric):
    stored = image(high=3000)
    stored[:, :5] = 65535
    stored[1, 6], stored[1, 7] = 0, 3000
    changes = {"PixelPaddingValue": 65535, "PhotometricInterpretation": photometric}
    found = pixels_of(tmp_path, stored, **changes)
    assert (found[:, :5] == 0).all()
    assert {found[1, 6], found[1, 7]} == {0, 65535}


AGES = [  # birth, study, PatientAge, years, whole
    ("20100203", "20200303", "", 10.0, False),
    ("20100203", "20150203", "", 5.0, False),  # on the birthday, whatever leap years say
    ("20100203", "20150202", "", 4.9, False),
    ("20100203", "20110803", "", 1.4, False),
    ("20100203", "20110810", "001Y", 1.5, False),
    ("", "20200303", "011Y", 11.0, True),
    ("20100203", "", "018M", 1.5, False),
    ("20200303", "20200303", "000D", 0.0, False),
    ("", "", "017M", 1.4, False),
    ("", "", "026W", 0.4, False),
    ("", "", "100D", 0.2, False),
]


@pytest.mark.parametrize("birth, study, age, years, whole", AGES)
def test_ages(tmp_path, birth, study, age, years, whole):
    changes = {"PatientBirthDate": birth, "StudyDate": study, "PatientAge": age}
    found = read_radiograph(write_dicom(tmp_path / "a.dcm", image(), **changes))
    assert (found.age, found.whole_years, found.note) == (years, whole, "")


def test_a_birth_date_that_is_the_study_date_is_no_age(tmp_path):
    same, reason = {"PatientBirthDate": "20200303"}, "the birth date is the study date, as after"
    found = read_radiograph(write_dicom(tmp_path / "a.dcm", image(), PatientAge="014Y", **same))
    assert (found.age, found.whole_years) == (14.0, True)
    assert found.note == f"age by PatientAge: {reason} anonymisation"
    found = read_radiograph(write_dicom(tmp_path / "a.dcm", image(), **same))
    assert np.isnan(found.age) and found.note == f"age unknown: {reason} anonymisation"


@pytest.mark.parametrize(
    "photometric, shape", [("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")]
)
def test_a_contradiction_on_what_is_bright_is_noted(tmp_path, photometric, shape):
    wanted = image()
    stored = wanted if photometric == "MONOCHROME2" else 65535 - wanted
    changes = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape}
    found = read_radiograph(write_dicom(tmp_path / "a.dcm", stored, **changes))
    assert found.note == (
        f"PresentationLUTShape {shape} contradicts {photometric}, by which the image is read"
    )
    assert np.array_equal(found.pixels, wanted)
    fitting = {"MONOCHROME2": "IDENTITY", "MONOCHROME1": "INVERSE"}[photometric]
    changes["PresentationLUTShape"] = fitting
    assert not read_radiograph(write_dicom(tmp_path / "a.dcm", stored, **changes)).note


@pytest.mark.parametrize(
    "changes, note",
    [
        ({"PatientBirthDate": ""}, "age not stated"),
        ({"PatientBirthDate": "20300101"}, "age not stated"),
        ({"PatientBirthDate": "unknown"}, "age not stated"),
        ({"PatientBirthDate": "", "PatientAge": "ten"}, "age not stated"),
        ({"PatientAge": "030Y"}, "age unknown: PatientAge contradicts the dates"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*value.*")
def test_unknown_ages_are_noted(tmp_path, changes, note):
    found = read_radiograph(write_dicom(tmp_path / "a.dcm", image(), **changes))
    assert np.isnan(found.age) and found.note == note


def test_side_view_and_part_are_told(tmp_path):
    found = read_radiograph(write_dicom(tmp_path / "a.dcm", image()))
    assert (found.laterality, found.view, found.note) == ("L", "PA", "")
    code, region = Dataset(), Dataset()
    code.CodeValue, region.CodeValue = "399067008", "14975008"
    changes = {
        **{"ImageLaterality": "U", "ViewPosition": "MUELLER", "ViewCodeSequence": [code]},
        **{"BodyPartExamined": "", "AnatomicRegionSequence": [region]},
    }
    found = read_radiograph(write_dicom(tmp_path / "a.dcm", image(), **changes))
    assert (found.laterality, found.view) == ("", "LATERAL")
    assert found.note == "body part FOREARM"


@pytest.mark.parametrize(
    "part, note",
    [
        ("", "body part not stated"),
        ("HAND", "body part HAND"),
        ("LEFT WRIST", ""),
        ("FOREARM", "body part FOREARM"),
        ("ARM", "body part ARM"),
    ],
)
def test_near_parts_are_noted(tmp_path, part, note):
    found = read_radiograph(write_dicom(tmp_path / "a.dcm", image(), BodyPartExamined=part))
    assert found.note == note


def three_frames(path):
    return write_dicom(path, np.stack([image()] * 3), NumberOfFrames=3)


def thousand_frames(path):  # as the header says; they are not read
    return write_dicom(path, image(), NumberOfFrames=1000)


def cut(path, syntax, share):
    whole = write_dicom(path, image(), syntax).read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def cut_inside(path, syntax):
    """The second half of the code is missing, but not the end of the sequence."""
    made = dcmread(write_dicom(path, image(), syntax))
    data = made.PixelData
    kept = data[: len(data) // 2 // 2 * 2]
    at = kept.index(b"\xfe\xff\x00\xe0", 8)
    length = len(kept) - at - 8
    made.PixelData = kept[: at + 4] + length.to_bytes(4, "little") + kept[at + 8 :]
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    made.save_as(path)


def meta(path, syntax):
    made = dcmread(write_dicom(path, image()))
    if syntax is None:
        del made.file_meta.TransferSyntaxUID
        made.save_as(path, implicit_vr=False, little_endian=True)
        return
    plain = made.PixelData
    if syntax.is_encapsulated:
        made.PixelData = encapsulate([plain + b"\xff\xd9"])
        made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = syntax
    made.save_as(path)


def deflated_bomb(path):
    whole = write_dicom(path, image(), DeflatedExplicitVRLittleEndian).read_bytes()
    start = 144 + int.from_bytes(whole[140:144], "little")
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    many = b"".join(stream.compress(bytes(2**20)) for _ in range(200)) + stream.flush()
    path.write_bytes(whole[:start] + many)


def unlike(**changes):
    return lambda path: write_dicom(path, image(), **changes)


REFUSED = {
    "no DICOM": (lambda path: path.write_bytes(b"\x89PNG" * 99), "is no DICOM file"),
    "empty": (lambda path: path.write_bytes(b""), "is no DICOM file"),
    "directory": (unlike(SOPClassUID="1.2.840.10008.1.3.10"), "directory of DICOM media"),
    "CT": (unlike(SOPClassUID=CTImageStorage, Modality="CT"), "modality CT; allowed are CR, DX"),
    "no modality": (unlike(Modality=None), "modality not stated; allowed are CR, DX, RG"),
    "raw": (unlike(PresentationIntentType="FOR PROCESSING"), "raw detector image"),
    "chest": (unlike(BodyPartExamined="CHEST"), "body part CHEST; allowed are WRIST"),
    "upper arm": (unlike(BodyPartExamined="UPPERARM"), "body part UPPERARM; allowed"),
    "three frames": (three_frames, "3 frames; only single images"),
    "thousand frames": (thousand_frames, "1000 frames; only single images"),
    "no pixels": (unlike(PixelData=None), r"holds no pixels \(no PixelData\)"),
    "no rows": (unlike(Rows=None), "lacks Rows$"),
    "zero rows": (unlike(Rows=0), r"holds no pixels \(0 rows, 40 columns\)"),
    "no bits": (
        unlike(BitsStored=None, SamplesPerPixel=None),
        "lacks SamplesPerPixel, BitsStored$",
    ),
    "no sign": (unlike(PixelRepresentation=None), "lacks PixelRepresentation$"),
    "no colours": (unlike(PhotometricInterpretation=None), "lacks PhotometricInterpretation$"),
    "high bit": (unlike(BitsStored=12, HighBit=15), "HighBit 15 with BitsStored 12; allowed is 11"),
    "too many bits": (unlike(BitsStored=17, HighBit=16), "BitsStored 17; allowed are 1 to"),
    "raw by class": (
        unlike(SOPClassUID=DigitalXRayImageStorageForProcessing),
        "raw detector image",
    ),
    "bomb": (deflated_bomb, "inflates to more than"),
    "cut deflated": (lambda p: cut(p, DeflatedExplicitVRLittleEndian, 0.6), "truncated"),
    "colour": (unlike(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "3 samples a pixel"),
    "palette": (unlike(PhotometricInterpretation="PALETTE COLOR"), "PALETTE COLOR; allowed"),
    "32 bits": (unlike(BitsAllocated=32), "32 bits a pixel"),
    "huge": (unlike(Rows=60000, Columns=60000), "60000 x 60000 pixels; at most"),
    "more rows": (unlike(Rows=61), "truncated, damaged or not in Explicit VR"),
    "nothing to see": (lambda p: write_dicom(p, image() * 0), "all alike"),
    "bad window": (unlike(WindowCenter=9, WindowWidth=0), "window or table cannot be applied"),
    "no syntax": (lambda p: meta(p, None), "names no transfer syntax"),
    "video": (lambda p: meta(p, MPEG2MPML), "MPEG2 .* is none of a single image"),
    "not JPEG 2000": (lambda p: meta(p, JPEG2000Lossless), "not in JPEG 2000 .*, as stated"),
    "not RLE": (lambda p: meta(p, RLELossless), "not in RLE Lossless, as stated"),
    "cut": (lambda p: cut(p, ExplicitVRLittleEndian, 0.6), "truncated"),
    "cut header": (lambda p: cut(p, ExplicitVRLittleEndian, 0.06), "."),
    "cut JPEG 2000": (lambda p: cut(p, JPEG2000Lossless, 0.6), "pixels are truncated"),
    "cut RLE": (lambda p: cut(p, RLELossless, 0.6), "pixels are truncated"),
    "cut inside": (lambda p: cut_inside(p, JPEG2000Lossless), "no end of the JPEG 2000"),
}


@pytest.mark.parametrize("make, reason", REFUSED.values(), ids=REFUSED)
def test_broken_and_foreign_files_are_refused_by_name(tmp_path, make, reason):
    path = tmp_path / "broken.dcm"
    make(path)
    with pytest.raises(PedfracError, match=f"^{path}: .*{reason}") as refused:
        read_radiograph(path)
    assert "\n" not in str(refused.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    syntax=st.sampled_from([ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless]),
    harm=st.lists(st.tuples(st.integers(128, 1200), st.integers(0, 255)), min_size=1, max_size=9),
)
def test_a_damaged_file_is_read_or_refused_and_tells_of_nobody(tmp_path, caplog, syntax, harm):
    path = tmp_path / f"{syntax.keyword}.dcm"
    whole = path.with_suffix(".whole")
    if not whole.exists():
        whole.write_bytes(write_dicom(path, image(), syntax).read_bytes())
    data = bytearray(whole.read_bytes())
    for at, value in harm:
        data[at] = value
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            told = repr(read_radiograph(path))
        except PedfracError as error:
            told = str(error)
    told += "".join(str(one.message) for one in warned) + caplog.text
    assert not [secret for secret in SECRETS if secret.upper() in told.upper()]


def test_files_are_told_by_name_or_content(tmp_path):
    with_suffix = write_dicom(tmp_path / "a.DCM", image())
    without = write_dicom(tmp_path / "IM0001", image())
    (tmp_path / "README").write_text("about these images")
    assert is_dicom(with_suffix) and is_dicom(without)
    assert not is_dicom(tmp_path / "README") and not is_dicom(tmp_path / "nowhere")
