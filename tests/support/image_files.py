"""Image files made of pixels, with what cameras and viewers add to them."""

import struct
import zlib

import cv2
import numpy as np

OPTIONS = {".png": (), ".jpg": (cv2.IMWRITE_JPEG_QUALITY, 100)}


def encode(pixels, suffix=".png"):
    """Return pixels as the bytes of a PNG or JPEG."""
    done, data = cv2.imencode(suffix, pixels, list(OPTIONS[suffix]))
    assert done
    return data.tobytes()


def smooth(height=72, width=48, seed=0, dtype=np.uint8):
    """Return an image of smooth blobs that uses the whole range, as a JPEG keeps it."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 4)
    image -= image.min()
    return np.rint(image / image.max() * np.iinfo(dtype).max).astype(dtype)


def with_orientation(data, orientation, order=">"):
    """Return a PNG or JPEG that says by its Exif data which way it is up."""
    start = b"MM\0*" if order == ">" else b"II*\0"
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = start + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)
    if data.startswith(b"\xff\xd8"):
        body = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    return data[:33] + chunk(b"eXIf", exif) + data[33:]  # after the header


def chunk(kind, data):
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(width=30_000, height=30_000):
    """Return a small PNG of many black pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    stream = zlib.compressobj(9)
    row = bytes(1 + width)
    packed = b"".join(stream.compress(row) for _ in range(height)) + stream.flush()
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
