"""Pixels: exact decoding, marker removal that touches nothing else, letterbox and its inverse."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pedfrac.config.data import Preparation
from pedfrac.errors import PedfracError
from pedfrac.imaging.boxes import yolo_to_xyxy
from pedfrac.imaging.decoding import decode, decode_bytes
from pedfrac.imaging.letterbox import Placement, letterbox
from pedfrac.imaging.markers import MARKER_MARGIN, RING, remove_markers
from pedfrac.imaging.preprocessing import prepare

sides = st.integers(1, 1500)
sizes = st.integers(16, 640)


def encode(image, suffix=".png", *options):
    done, data = cv2.imencode(suffix, image, list(options))
    assert done
    return data.tobytes()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


# ---- decoding ---------------------------------------------------------------------------------


def test_every_16_bit_value_becomes_its_high_byte():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = decode_bytes(encode(values), "image.png")
    assert image.dtype == np.uint8
    assert np.array_equal(image, values >> 8)


@pytest.mark.parametrize("value", [0, 255, 256, 257, 32767, 65280, 65535])
def test_16_bit_values_do_not_clip(value):
    image = decode_bytes(encode(np.full((5, 7), value, np.uint16)), "image.png")
    assert image.shape == (5, 7)
    assert np.all(image == value >> 8)


def test_8_bit_grey_is_unchanged(tmp_path):
    image = noise(40, 30)
    (tmp_path / "image.png").write_bytes(encode(image))
    assert np.array_equal(decode(tmp_path / "image.png"), image)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_grey_in_colour_channels_is_that_grey(channels, kind):
    grey = noise(20, 10).astype(kind) * (257 if kind == np.uint16 else 1)
    image = np.repeat(grey[:, :, None], channels, axis=2)
    if channels == 4:
        image[:, :, 3] = 0  # alpha must not matter
    expected = (grey >> 8).astype(np.uint8) if kind == np.uint16 else grey
    assert np.array_equal(decode_bytes(encode(image), "image.png"), expected)


def test_a_coloured_letter_becomes_luminance():
    image = np.repeat(noise(60, 40)[:, :, None], 3, axis=2)
    image[:4, :5] = 0, 0, 255  # red; 20 of 2,400 pixels
    found = decode_bytes(encode(image), "image.png")
    assert np.all(found[:4, :5] == round(0.299 * 255))
    assert np.array_equal(found[4:], image[4:, :, 0])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_picture_in_colour_is_refused(suffix, kind):
    image = np.repeat(cv2.GaussianBlur(noise(64, 48), (0, 0), 3)[:, :, None], 3, axis=2)
    image[:, :24, 0] //= 4
    if kind == np.uint16 and suffix == ".png":
        image = image.astype(np.uint16) * 257
    with pytest.raises(PedfracError, match=r"^a: is a picture in colour \((49|50|51)% of its pix"):
        decode_bytes(encode(image, suffix), "a")


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("colour", [False, True])
def test_jpeg_is_close_to_what_was_written(progressive, colour):
    grey = cv2.GaussianBlur(noise(64, 48), (0, 0), 5)
    image = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) if colour else grey
    options = (cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    decoded = decode_bytes(encode(image, ".jpg", *options), "image.jpg")
    assert decoded.shape == grey.shape
    assert np.abs(decoded.astype(int) - grey).max() <= 4


def test_bytes_after_the_end_do_not_matter():
    image = noise(20, 20)
    assert np.array_equal(decode_bytes(encode(image) + b"more", "image.png"), image)
    jpeg = encode(image, ".jpg")
    assert np.array_equal(decode_bytes(jpeg + b"\0\0", "a"), decode_bytes(jpeg, "a"))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_every_truncation_is_an_error_that_names_the_file(tmp_path, suffix):
    data = encode(noise(24, 24), suffix)
    path = tmp_path / f"cut{suffix}"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(PedfracError, match=f"cut{suffix}"):
            decode(path)


def test_truncation_inside_a_jpeg_with_a_thumbnail_is_found():
    thumbnail = encode(noise(8, 8), ".jpg")
    data = encode(noise(64, 64), ".jpg")
    app1 = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + app1 + data[2:]
    assert decode_bytes(whole, "image.jpg").shape == (64, 64)
    with pytest.raises(PedfracError, match="truncated"):
        decode_bytes(whole[:-40], "image.jpg")


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10**6), value=st.integers(1, 255))
def test_a_changed_byte_in_a_png_is_an_error(at, value):
    data = bytearray(encode(noise(16, 16)))
    data[at % len(data)] ^= value
    with pytest.raises(PedfracError, match=r"image\.png"):
        decode_bytes(bytes(data), "image.png")


def test_a_png_whose_pixels_are_missing_is_an_error():
    data = encode(noise(16, 16))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    with pytest.raises(PedfracError, match="holds no pixels"):
        decode_bytes(data[:33] + end, "image.png")


@pytest.mark.parametrize(
    ("data", "found"),
    [(b"", "empty file"), (b"not an image at all", "not an i"), (b"BM" + bytes(100), "BM")],
)
def test_garbage_is_named_with_what_was_found(tmp_path, data, found):
    path = tmp_path / "garbage.png"
    path.write_bytes(data)
    with pytest.raises(PedfracError, match=rf"garbage\.png.*{found}"):
        decode(path)


def test_missing_file_and_folder_are_errors(tmp_path):
    with pytest.raises(PedfracError, match=r"none\.png: cannot be read"):
        decode(tmp_path / "none.png")
    with pytest.raises(PedfracError, match="cannot be read"):
        decode(tmp_path)


# ---- markers ----------------------------------------------------------------------------------

corner = st.floats(-40, 140, allow_nan=False)


def grown(boxes, shape):
    """Which pixels removal may touch, computed the slow way."""
    inside = np.zeros(shape, bool)
    for x1, y1, x2, y2 in boxes:
        for y in range(shape[0]):
            for x in range(shape[1]):
                inside[y, x] |= (
                    np.floor(x1) - MARKER_MARGIN <= x < np.ceil(x2) + MARKER_MARGIN
                    and np.floor(y1) - MARKER_MARGIN <= y < np.ceil(y2) + MARKER_MARGIN
                )
    return inside


@pytest.mark.parametrize("how", ["fill", "inpaint"])
@settings(max_examples=40, deadline=None)
@given(corners=st.lists(st.tuples(corner, corner, corner, corner), max_size=3))
def test_pixels_outside_the_boxes_are_untouched(how, corners):
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    image = noise(60, 50)
    before = image.copy()
    cleaned = remove_markers(image, boxes, how)
    outside = ~grown(boxes, image.shape)
    assert np.array_equal(cleaned[outside], image[outside])
    assert np.array_equal(image, before), "the image given must not change"


@pytest.mark.parametrize("how", ["fill", "inpaint"])
@pytest.mark.parametrize("at", [(0, 0), (30, 40), (80, 90)], ids=["corner", "middle", "far corner"])
def test_the_marker_is_gone_and_what_surrounds_it_takes_its_place(how, at):
    left, top = at
    image = np.full((110, 100), 60, np.uint8)
    image[top : top + 20, left : left + 16] = 255
    # The label is drawn tight: the marker reaches out of its box on all sides.
    box = [left + 4, top + 4, left + 12, top + 16]
    cleaned = remove_markers(image, [box], how)
    tolerance = 0 if how == "fill" else 4  # Telea extrapolates a little at the image's edge
    assert np.abs(cleaned.astype(int) - 60).max() <= tolerance


def test_fill_holds_no_trace_of_the_letter():
    surroundings = noise(80, 80)
    images = []
    for letter in (0, 255):
        image = surroundings.copy()
        image[30:50, 30:45] = letter
        images.append(remove_markers(image, [[30, 30, 45, 50]], "fill"))
    assert np.array_equal(*images)


def test_boxes_that_touch_are_filled_as_one_whatever_their_order():
    image = noise(80, 80)
    boxes = [[20, 20, 40, 40], [30, 30, 60, 50]]
    cleaned = remove_markers(image, boxes, "fill")
    assert np.array_equal(cleaned, remove_markers(image, boxes[::-1], "fill"))
    assert len(np.unique(cleaned[grown(boxes, image.shape)])) == 1


def filled_over_the_whole_image(image, boxes):
    """What filling was before it looked at nothing but a marker's surroundings."""
    cleaned, mask = image.copy(), np.zeros(image.shape, np.uint8)
    for x1, y1, x2, y2 in boxes:
        top, left = (max(0, int(np.floor(low)) - MARKER_MARGIN) for low in (y1, x1))
        bottom, right = (max(0, int(np.ceil(high)) + MARKER_MARGIN) for high in (y2, x2))
        mask[top:bottom, left:right] = 1
    count, regions = cv2.connectedComponents(mask, connectivity=8)
    kernel = np.ones((2 * RING + 1, 2 * RING + 1), np.uint8)
    for number in range(1, count):
        inside = regions == number
        ring = (cv2.dilate(inside.astype(np.uint8), kernel) == 1) & (mask == 0)
        cleaned[inside] = np.uint8(np.median(image[ring])) if ring.any() else 0
    return cleaned


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    corners=st.lists(st.tuples(corner, corner, corner, corner), max_size=6),
    seed=st.integers(0, 100),
)
def test_filling_around_the_markers_alone_gives_the_same_image(shape, corners, seed):
    boxes = [(a, b, a + abs(c) / 6, b + abs(d) / 6) for a, b, c, d in corners]
    image = noise(*shape, seed)
    expected = filled_over_the_whole_image(image, boxes)
    assert np.array_equal(remove_markers(image, boxes, "fill"), expected)


def test_a_box_over_the_whole_image_leaves_nothing():
    assert not remove_markers(noise(20, 20), [[0, 0, 20, 20]], "fill").any()


@pytest.mark.parametrize("how", ["fill", "inpaint", "off"])
def test_without_boxes_or_switched_off_the_image_is_copied(how):
    image = noise(30, 30)
    cleaned = remove_markers(image, [] if how != "off" else [[5, 5, 9, 9]], how)
    assert np.array_equal(cleaned, image)
    assert not np.shares_memory(cleaned, image)


# ---- letterbox --------------------------------------------------------------------------------


@given(height=sides, width=sides, size=sizes, data=st.data())
def test_placement_goes_there_and_back(height, width, size, data):
    placement = Placement.of(height, width, size)
    xs = st.floats(0, width)
    ys = st.floats(0, height)
    boxes = data.draw(st.lists(st.tuples(xs, ys, xs, ys), min_size=1, max_size=4))
    there = placement.apply(boxes)
    np.testing.assert_allclose(placement.invert(there), boxes, atol=1e-6 * max(height, width))
    assert there.shape == (len(boxes), 4)


@given(height=sides, width=sides, size=sizes)
def test_a_image_is_centred_fills_its_long_side_and_keeps_its_aspect(height, width, size):
    placement = Placement.of(height, width, size)
    inner_h, inner_w = placement.inner
    assert max(inner_h, inner_w) == size
    assert abs(size - inner_w - 2 * placement.dx) <= 1
    assert abs(size - inner_h - 2 * placement.dy) <= 1
    exact = (height * placement.scale, width * placement.scale)
    assert all(abs(a - max(1, b)) <= 0.5 for a, b in zip((inner_h, inner_w), exact, strict=True))
    x1, y1, x2, y2 = placement.apply([[0, 0, width, height]])[0]
    assert min(x1, y1) >= 0
    assert max(x2, y2) <= size + 1


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), size=st.integers(16, 200))
def test_padding_is_black_and_a_flat_image_stays_flat(height, width, size):
    square, placement = letterbox(np.full((height, width), 200, np.uint8), size)
    inner_h, inner_w = placement.inner
    inside = np.zeros((size, size), bool)
    inside[placement.dy : placement.dy + inner_h, placement.dx : placement.dx + inner_w] = True
    assert square.dtype == np.uint8
    assert np.all(square[inside] == 200)
    assert np.all(square[~inside] == 0)


def test_pixels_land_where_the_placement_says():
    image = np.zeros((300, 200), np.uint8)
    image[100:160, 50:110] = 255
    square, placement = letterbox(image, 96)
    ys, xs = np.nonzero(square > 127)
    found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    np.testing.assert_allclose(found, placement.apply([[50, 100, 110, 160]])[0], atol=1)


def test_shrinking_averages_all_pixels():
    image = noise(128, 128)
    square, _ = letterbox(image, 64)
    means = image.reshape(64, 2, 64, 2).mean(axis=(1, 3))
    assert np.abs(square - means).max() <= 0.5


def test_a_image_of_the_right_size_is_unchanged():
    image = noise(64, 64)
    assert np.array_equal(letterbox(image, 64)[0], image)


# ---- the whole way ----------------------------------------------------------------------------


@given(width=sides, height=sides, data=st.data())
def test_yolo_boxes_become_corners(width, height, data):
    unit = st.floats(0, 1)
    x1, x2 = sorted(data.draw(st.tuples(unit, unit)))
    y1, y2 = sorted(data.draw(st.tuples(unit, unit)))
    boxes = yolo_to_xyxy([[(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]], width, height)
    expected = [[x1 * width, y1 * height, x2 * width, y2 * height]]
    np.testing.assert_allclose(boxes, expected, atol=1e-6 * max(width, height))


def test_yolo_boxes_of_a_image_without_any():
    assert yolo_to_xyxy([], 10, 20).shape == (0, 4)


@pytest.mark.parametrize("markers", ["fill", "inpaint", "off"])
def test_a_file_and_its_decoded_image_are_prepared_alike(tmp_path, markers):
    path = tmp_path / "image.png"
    path.write_bytes(encode(noise(90, 60).astype(np.uint16) * 257))
    preparation = Preparation(size=32, markers=markers)
    boxes = [[5, 5, 20, 25]]
    square, placement = prepare(path, boxes, preparation)
    again, _ = prepare(decode(path), boxes, preparation)
    expected, _ = letterbox(remove_markers(decode(path), boxes, markers), 32)
    assert square.shape == (32, 32)
    assert square.dtype == np.uint8
    assert placement == Placement.of(90, 60, 32)
    assert np.array_equal(square, again)
    assert np.array_equal(square, expected)
