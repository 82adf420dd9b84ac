"""One preparation for all formats: range, content, orientation and size, as meant or refused."""

import cv2
import numpy as np
import pytest
from dicom_files import write_dicom
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encode, huge_png, smooth, with_orientation
from PIL import Image as Pillow
from PIL import ImageOps

from pedfrac.config.data import Preparation
from pedfrac.data.image_files import ImageFault, inspect_image
from pedfrac.errors import PedfracError
from pedfrac.imaging.decoding import as_grey, decode, decode_bytes
from pedfrac.imaging.dicom import read_radiograph
from pedfrac.imaging.exif import orientation_of, upright
from pedfrac.imaging.preprocessing import prepare
from pedfrac.serving.images import Image, prepare_image

PREPARATION = Preparation(size=32, markers="fill")


def written(path, data):
    path.write_bytes(data)
    return path


def scored(path):
    """Return how prediction prepares a file for its networks, or its error."""
    found = prepare_image(Image(path), PREPARATION, PREPARATION)
    return found.error or found.fracture_image


# ---- bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(4, 16))
@pytest.mark.parametrize("offset", [0, 300])
def test_fewer_bits_in_16_are_stretched_as_dicom_is(tmp_path, bits, offset):
    stored = (smooth(dtype=np.uint16).astype(int) >> (16 - bits)).astype(np.uint16)
    if offset and bits < 15:
        stored += offset
    png = written(tmp_path / "a.png", encode(stored))
    wanted = as_grey(read_radiograph(write_dicom(tmp_path / "a.dcm", stored)).pixels)
    assert wanted.min() == 0 and wanted.max() == 255
    assert np.array_equal(decode(png), wanted)
    assert np.array_equal(scored(png), scored(tmp_path / "a.dcm"))
    assert np.array_equal(prepare(png, [], PREPARATION)[0], scored(png))


@settings(max_examples=30, deadline=None)
@given(low=st.integers(0, 32767), more=st.integers(0, 32767))
def test_what_uses_half_of_its_range_keeps_its_values(low, more):
    high = min(65535, low + 32768 + more)
    stored = np.rint(low + smooth(dtype=np.uint16) * ((high - low) / 65535)).astype(np.uint16)
    assert np.array_equal(decode_bytes(encode(stored), "a"), stored >> 8)


@pytest.mark.parametrize("low", [0, 255, 256, 300])
@pytest.mark.parametrize("span", [32767, 32768, 33000])
def test_the_bound_does_not_depend_on_how_a_png_is_written(low, span):
    stored = np.full((40, 40), low, np.uint16)
    stored[:, 20:] = low + span
    plain, text = encode(stored), with_orientation(encode(stored), 1)  # the slow way
    wanted = 0 if span == 32767 else low >> 8
    assert decode_bytes(plain, "a")[0, 0] == decode_bytes(text, "a")[0, 0] == wanted


# ---- content ----------------------------------------------------------------------------------


def letter_on_black():
    image = np.zeros((200, 150))
    image[5:15, 5:25] = 1  # 200 of 30,000 pixels
    return image


def faint():
    image = np.full((90, 60), 0.4)
    image[::3] += 0.005 * np.random.default_rng(0).integers(-1, 2, (30, 60))
    return image


EMPTY = {
    "black": (np.zeros((90, 60)), "shows nothing"),
    "white": (np.ones((90, 60)), "shows nothing"),
    "grey": (np.full((90, 60), 0.5), "shows nothing"),
    "letter": (letter_on_black(), "shows nothing"),
    "faint": (faint(), "shows nothing"),
    "mask": (np.kron([[0, 1], [1, 0]], np.ones((45, 30))), "holds 2 of 256 grey levels"),
    "one pixel": (np.ones((1, 1)), "1 x 1 pixels; each side must have 32 or more"),
    "tiny": (np.random.default_rng(0).random((31, 400)), "400 x 31 pixels; each side must have"),
}


@pytest.mark.parametrize("share, reason", EMPTY.values(), ids=EMPTY)
@pytest.mark.parametrize("kind", ["8.png", "16.png", "jpg", "dcm"])
def test_what_shows_nothing_is_refused_everywhere(tmp_path, share, reason, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "jpg" and "grey levels" in reason:
        pytest.skip("a JPEG blurs two levels into many")
    pixels = np.rint(share * (65535 if kind in ("16.png", "dcm") else 255))
    pixels = pixels.astype(np.uint16 if kind in ("16.png", "dcm") else np.uint8)
    if kind == "dcm":
        alike = pixels.min() == pixels.max()
        assert ("its pixels are all alike" if alike else reason) in scored(
            write_dicom(path, pixels)
        )
        return
    path.write_bytes(encode(pixels, path.suffix))
    assert scored(path).startswith(f"{path}: ") and reason in scored(path)
    with pytest.raises(PedfracError, match=reason):
        prepare(path, [], PREPARATION)
    with pytest.raises(ImageFault, match=reason) as fault:
        inspect_image(path)
    assert fault.value.kind in ("image-empty", "image-too-small")


# ---- orientation ------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_images_are_turned_as_pillow_turns_them(tmp_path, orientation, suffix, order):
    data = encode(smooth(), suffix)
    path = written(tmp_path / f"a{suffix}", with_orientation(data, orientation, order))
    with Pillow.open(path) as stored:
        wanted = np.asarray(ImageOps.exif_transpose(stored))
    assert wanted.shape == ((72, 48) if orientation < 5 else (48, 72))
    assert np.abs(decode(path).astype(int) - wanted).max() <= 1  # two decoders of JPEG
    facts = inspect_image(path)
    assert (facts.height, facts.width) == wanted.shape


def test_a_turned_image_is_scored_as_the_upright_one(tmp_path):
    upright_one = written(tmp_path / "a.png", encode(smooth()))
    stored = np.ascontiguousarray(np.rot90(smooth()))  # 6: to be turned clockwise
    turned = written(tmp_path / "b.png", with_orientation(encode(stored), 6))
    assert np.array_equal(scored(turned), scored(upright_one))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_whatever_exif_holds_is_an_orientation(data):
    for exif in (data, b"II*\0" + data, b"MM\0*\0\0\0\x08\0\x01" + data):
        assert 1 <= orientation_of(exif) <= 8


def test_turning_leaves_colour_where_it_is():
    image = np.arange(24).reshape(2, 4, 3)
    assert upright(image, 6).tolist() == np.rot90(image, -1).tolist()


# ---- size and whole files ---------------------------------------------------------------------


def test_a_small_file_of_many_pixels_is_refused_by_its_header(tmp_path, monkeypatch):
    path = written(tmp_path / "a.png", huge_png())
    assert path.stat().st_size < 1_000_000
    monkeypatch.setattr(cv2, "imdecode", None)  # nothing may be decoded
    reason = f"{path}: 30000 x 30000 pixels; at most 50,000,000 are read"
    assert scored(path) == reason
    with pytest.raises(ImageFault, match="30000 x 30000 pixels; at most") as fault:
        inspect_image(path)
    assert fault.value.kind == "image-too-large"


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("more", [b"\0\0", b"more", b"\xff\xd8\xff\xe0 a second picture"])
def test_bytes_after_the_end_are_judged_alike(tmp_path, suffix, more):
    image = smooth()
    plain = written(tmp_path / f"a{suffix}", encode(image, suffix))
    longer = written(tmp_path / f"b{suffix}", encode(image, suffix) + more)
    assert inspect_image(longer)[:2] == (48, 72)
    assert np.array_equal(scored(longer), scored(plain))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_files_are_judged_alike(tmp_path, suffix):
    data = encode(smooth(40, 40), suffix)
    path = tmp_path / f"a{suffix}"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ImageFault):
            inspect_image(path)
        assert isinstance(scored(path), str)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_grey_in_three_channels_is_that_grey_everywhere(tmp_path, suffix):
    image = smooth()
    grey = written(tmp_path / f"a{suffix}", encode(image, suffix))
    three = written(tmp_path / f"b{suffix}", encode(np.dstack([image] * 3), suffix))
    assert inspect_image(three)[:2] == (48, 72)
    assert np.abs(scored(three).astype(int) - scored(grey)).max() <= 1


def test_a_picture_in_colour_is_no_radiograph_anywhere(tmp_path):
    image = np.dstack([smooth(seed=seed) for seed in range(3)])
    path = written(tmp_path / "a.png", encode(image))
    assert "is a picture in colour" in scored(path)
    with pytest.raises(ImageFault) as fault:
        inspect_image(path)
    assert fault.value.kind == "image-colour"
