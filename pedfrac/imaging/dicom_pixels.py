"""The pixels of a DICOM radiograph: refused by name, decoded, and as they are meant to be seen.

Not here: what the header says of patient and body part (dicom).
"""

import zlib
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder, pixel_array
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pedfrac.errors import PedfracError
from pedfrac.imaging.dicom_elements import is_stated, number_of, shown, text_of
from pedfrac.imaging.image_file import MAX_PIXELS

# Elements of type 1, which no image may lack, and those that it may.
NEEDED = (
    *("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
)
_NUMBERS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored")
_OPTIONAL_NUMBERS = ("HighBit", "NumberOfFrames")
ELEMENTS = (
    *NEEDED,
    *("HighBit", "NumberOfFrames", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleIntercept", "RescaleSlope", "ModalityLUTSequence"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
)

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
_MAX_INFLATED = 2 * MAX_PIXELS + 2**24  # bytes of a deflated file: pixels and header
_DEFLATED = DeflatedExplicitVRLittleEndian.encode()
_META_LENGTH = b"\x02\0\0\0UL\x04\0"  # the element that says how long the file meta information is


def refuse_shape(file: str, header: Dataset) -> None:
    """Refuse, before anything is decoded, what is not one grey picture of a sensible size.

    Raises PedfracError that names the element; ``file`` is what the error calls the file.
    """
    if missing := [name for name in NEEDED if not is_stated(header, name)]:
        raise PedfracError(f"{file}: lacks {', '.join(missing)}")
    numbers = {name: number_of(file, header, name) for name in (*_NUMBERS, *_OPTIONAL_NUMBERS)}
    rows, columns, samples, bits, stored, highest, frames = (numbers[name] for name in numbers)
    assert rows is not None and columns is not None and bits is not None and stored is not None
    if frames is not None and frames != 1:
        raise PedfracError(f"{file}: {frames} frames; only single images are scored")
    if rows < 1 or columns < 1:
        raise PedfracError(f"{file}: holds no pixels ({rows} rows, {columns} columns)")
    if rows * columns > MAX_PIXELS:
        raise PedfracError(f"{file}: {rows} x {columns} pixels; at most {MAX_PIXELS:,} are read")
    photometric = text_of(header, "PhotometricInterpretation")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise PedfracError(
            f"{file}: {samples} samples a pixel, photometric interpretation {shown(photometric)}; "
            "allowed is 1, MONOCHROME1 or MONOCHROME2"
        )
    if bits not in (8, 16):
        raise PedfracError(f"{file}: {bits} bits a pixel; allowed are 8 and 16")
    if not 1 <= stored <= bits:
        raise PedfracError(f"{file}: BitsStored {stored}; allowed are 1 to BitsAllocated, {bits}")
    if highest is not None and highest != stored - 1:
        raise PedfracError(
            f"{file}: HighBit {highest} with BitsStored {stored}; allowed is {stored - 1}: "
            "which bits hold the pixels cannot be known"
        )


def decode_pixels(data: bytes, file: str, header: Dataset) -> NDArray[Any]:
    """Return the stored values (rows,columns) of a DICOM file's bytes.

    Raises PedfracError where they cannot be decoded as the transfer syntax says.
    """
    syntax = header.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise PedfracError(f"{file}: names no transfer syntax")
    try:
        if not get_decoder(syntax).is_available:
            raise PedfracError(f"{file}: no decoder for transfer syntax {syntax.name} is installed")
    except NotImplementedError:
        raise PedfracError(
            f"{file}: transfer syntax {shown(syntax.name)} is none of a single image"
        ) from None
    if syntax.is_encapsulated:
        _refuse_unfinished(data, file, syntax)
    deflated = syntax == DeflatedExplicitVRLittleEndian
    source = dcmread(BytesIO(data)) if deflated else BytesIO(data)
    try:
        stored = pixel_array(source, raw=True, decoding_plugin=_DECODERS.get(syntax, ""))
    except AttributeError:
        raise PedfracError(f"{file}: holds no pixels (no PixelData)") from None
    except Exception as error:  # each decoder has errors of its own
        reason = " ".join(str(error).split())[:200]
        raise PedfracError(
            f"{file}: pixels are truncated, damaged or not in {syntax.name}, as stated ({reason})"
        ) from None
    if stored.shape != (header.Rows, header.Columns):
        raise PedfracError(
            f"{file}: pixels of shape {stored.shape}, but the header says "
            f"({header.Rows}, {header.Columns})"
        )
    return stored


def refuse_inflating(data: bytes, file: str) -> None:
    """Refuse a deflated file that would take far more memory than an image, or is cut off.

    Any other file is let through. What pydicom inflates has no bound.
    """
    start = 132 + 12 + int.from_bytes(data[140:144], "little")
    if data[132:140] != _META_LENGTH or _DEFLATED not in data[144:start]:
        return
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        held = len(stream.decompress(data[start:], _MAX_INFLATED + 1))
    except zlib.error:
        raise PedfracError(f"{file}: damaged, its deflated elements cannot be read") from None
    if held > _MAX_INFLATED:
        raise PedfracError(f"{file}: inflates to more than {_MAX_INFLATED:,} bytes")
    if not stream.eof:
        raise PedfracError(f"{file}: pixels are truncated (no end of the deflated elements)")


def _refuse_unfinished(data: bytes, file: str, syntax: UID) -> None:
    """Refuse compressed pixels without their end: decoders fill up what is missing, in silence."""
    pixels, end, _ = data[-_TAIL:].rpartition(_END_OF_PIXELS)
    if not end:
        raise PedfracError(f"{file}: pixels are truncated (no end of their sequence)")
    if syntax != RLELossless and _END_OF_CODE not in pixels[-_PADDING:]:
        raise PedfracError(f"{file}: pixels are truncated (no end of the {syntax.name})")


def displayed(file: str, header: Dataset, stored: NDArray[Any]) -> NDArray[np.uint16]:
    """Return stored values (rows,columns) as they are meant to be seen, in 16 bits.

    Raises PedfracError where that cannot be done, or all of them are alike.
    """
    try:
        values = apply_voi_lut(apply_modality_lut(stored, header), header)
    except Exception as error:  # whatever a nonsensical table or window leads to
        raise PedfracError(
            f"{file}: rescale, window or table cannot be applied ({error})"
        ) from None
    image = values.astype(np.float64)
    seen = ~_padding(header, stored)
    low, high = (image[seen].min(), image[seen].max()) if seen.any() else (0.0, 0.0)
    if not (np.isfinite([low, high]).all() and high > low):
        raise PedfracError(f"{file}: the image shows nothing, its pixels are all alike")
    image = (image - low) * (65535 / (high - low))
    if text_of(header, "PhotometricInterpretation") == "MONOCHROME1":
        image = 65535 - image
    return np.where(seen, np.rint(image), 0).astype(np.uint16)


def _padding(header: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_]:
    if (value := header.get("PixelPaddingValue")) is None:
        return np.zeros(stored.shape, bool)
    limit = header.get("PixelPaddingRangeLimit")
    ends = sorted((int(value), int(value if limit is None else limit)))
    return (stored >= ends[0]) & (stored <= ends[1])
