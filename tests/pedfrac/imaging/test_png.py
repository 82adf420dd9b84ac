"""The fast way to an image's pixels: what OpenCV says of the same bytes, or nothing."""

import struct
import zlib
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pedfrac.imaging import png

HEIGHT, WIDTH = 9, 7


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write(packed, bits=16, colour=0, interlaced=0, between=b"", pieces=1, shape=(HEIGHT, WIDTH)):
    """A PNG whose checksums fit whatever packed rows it holds."""
    cuts = np.linspace(0, len(packed), pieces + 1).astype(int)
    header = struct.pack(">IIBBBBB", shape[1], shape[0], bits, colour, 0, 0, interlaced)
    idat = b"".join(chunk(b"IDAT", packed[a:b]) for a, b in pairwise(cuts))
    return png.SIGNATURE + chunk(b"IHDR", header) + between + idat + chunk(b"IEND", b"")


def rows(bits=16, filters=(1,) * HEIGHT, seed=0):
    row = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH * bits // 8), np.uint8)
    return b"".join(bytes([kind]) + own.tobytes() for kind, own in zip(filters, row, strict=True))


def by_opencv(data):
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    return (
        (image >> 8).astype(np.uint8) if image is not None and image.dtype == np.uint16 else image
    )


def fast(data):
    return png.high_bytes(png.chunks(data))


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(2, 40)),
    kind=st.sampled_from([np.uint8, np.uint16]),
    seed=st.integers(0, 1000),
    pieces=st.integers(1, 5),
)
def test_what_opencv_writes_is_read_as_opencv_reads_it(shape, kind, seed, pieces):
    image = np.random.default_rng(seed).integers(0, np.iinfo(kind).max + 1, shape, dtype=kind)
    data = cv2.imencode(".png", image)[1].tobytes()
    found = fast(data)
    assert found is not None, "images as OpenCV writes them must not take the slow way"
    assert np.array_equal(found, by_opencv(data))
    packed = b"".join(part.data for part in png.chunks(data) if part.kind == b"IDAT")
    bits = 8 * np.dtype(kind).itemsize
    assert np.array_equal(fast(write(packed, bits, pieces=pieces, shape=shape)), found)


@settings(max_examples=300, deadline=None)
@given(
    bits=st.sampled_from([8, 16]),
    changes=st.lists(st.tuples(st.integers(0, 10**4), st.integers(1, 255)), max_size=3),
    cut=st.one_of(st.just(0), st.integers(0, 30)),
    more=st.binary(max_size=6),
    level=st.sampled_from([0, 1, 9]),
)
def test_of_damaged_rows_it_says_what_opencv_says_or_nothing(bits, changes, cut, more, level):
    packed = bytearray(zlib.compress(rows(bits), level))
    for at, value in changes:
        packed[at % len(packed)] ^= value
    data = write(bytes(packed[: len(packed) - cut]) + more, bits)
    found = fast(data)
    if found is not None:
        assert np.array_equal(found, by_opencv(data))
    else:
        assert changes or cut, "whole rows must not take the slow way"


@pytest.mark.parametrize(
    "data",
    [
        write(zlib.compress(rows(filters=(1, 2, 3, 4, 0, 1, 1, 1, 1)))),
        write(zlib.compress(rows(filters=(5,) * HEIGHT))),
        write(zlib.compress(rows()), between=chunk(b"tRNS", b"\x12\x34")),
        write(zlib.compress(rows()), between=chunk(b"tEXt", b"a\0b")),
        write(zlib.compress(rows()), interlaced=1),
        write(zlib.compress(rows()), bits=8, colour=4),
        write(zlib.compress(rows()), shape=(0, WIDTH)),
        write(zlib.compress(rows()), shape=(2**31 - 1, 2**31 - 1)),
        write(zlib.compress(rows() + b"\1")),
        write(zlib.compress(rows()[:-1])),
        write(b""),
        png.SIGNATURE + chunk(b"IEND", b""),
        png.SIGNATURE + chunk(b"IHDR", b"short") + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
    ],
    ids=[
        "filters",
        "unknown filter",
        "transparent",
        "text",
        "interlaced",
        "alpha",
        "empty",
        "huge",
        "more rows",
        "fewer rows",
        "no rows",
        "no header",
        "short header",
    ],
)
def test_any_other_png_is_left_to_opencv(data):
    assert fast(data) is None


def test_rows_with_a_wrong_checksum_are_left_to_opencv_which_refuses_them():
    packed = bytearray(zlib.compress(rows()))
    packed[-1] ^= 1
    data = write(bytes(packed))
    assert fast(data) is None
    assert by_opencv(data) is None
