"""Statistics of images: each moves with what it is named for, and not with the letterbox."""

import cv2
import numpy as np
import pytest

from pedfrac.imaging.image_statistics import STATISTICS, image_statistics
from pedfrac.imaging.letterbox import letterbox


@pytest.fixture(scope="module")
def image():
    """A bright shape with fine texture on a dark ground, 300 x 200."""
    random = np.random.default_rng(0)
    texture = cv2.GaussianBlur(random.normal(0, 60, (300, 200)).astype(np.float32), (0, 0), 1.2)
    body = np.zeros((300, 200), np.float32)
    cv2.ellipse(body, (100, 150), (70, 130), 0, 0, 360, 120.0, -1)
    return np.where(body > 0, body + texture, 0).clip(0, 255)


def of(image, size=128):
    whole = image.clip(0, 255).astype(np.uint8)
    found = image_statistics(letterbox(whole, size)[0], whole.shape)
    return dict(zip(STATISTICS, found, strict=True))


def test_each_moves_with_what_it_is_named_for(image):
    plain = of(image)
    random = np.random.default_rng(1)
    assert of(image * 0.7)["brightness"] == pytest.approx(0.7 * plain["brightness"], rel=0.03)
    flat = of(np.where(image > 0, 120 + 0.5 * (image - 120), 0))
    assert flat["contrast"] < 0.85 * plain["contrast"]
    assert of(cv2.GaussianBlur(image, (0, 0), 3))["sharpness"] < plain["sharpness"] - 0.1
    noisy = of(np.where(image > 0, image + random.normal(0, 20, image.shape), 0))
    assert noisy["noise"] > 1.5 * plain["noise"]
    assert of(image[:, 60:140])["background"] < plain["background"]


def test_contrast_does_not_move_sharpness(image):
    assert of(image * 0.6)["sharpness"] == pytest.approx(of(image)["sharpness"], abs=0.02)


def test_shape_is_that_of_the_image_as_it_came(image):
    found = of(cv2.resize(image, None, fx=2, fy=2))
    assert (found["long_side"], found["aspect"]) == (600, pytest.approx(2 / 3))
    # the black bars of the letterbox are no background
    assert of(np.full((300, 100), 200.0))["background"] == 0


@pytest.mark.parametrize("grey", [0, 255])
def test_an_empty_image_has_numbers_too(grey):
    assert np.isfinite(list(of(np.full((30, 20), float(grey))).values())).all()
