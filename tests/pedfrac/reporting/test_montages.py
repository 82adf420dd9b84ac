"""Montages fit the page's budget, and one that is no picture is named."""

import base64

import cv2
import numpy as np
import pytest

from pedfrac.errors import PedfracError
from pedfrac.reporting.montages import MONTAGE_BYTES, fit_montages


def test_small_montages_stay_as_large_as_they_are(tmp_path):
    cv2.imwrite(str(tmp_path / "m.png"), np.full((60, 80, 3), 128, np.uint8))
    fitted = fit_montages({"5-10y": tmp_path / "m.png"})["5-10y"]
    assert (fitted["width"], fitted["height"]) == (80, 60)
    encoded = base64.b64decode(fitted["uri"].split(",")[1])
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (60, 80, 3) and abs(int(pixels.mean()) - 128) <= 1


def test_large_montages_are_made_to_fit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), noise)
    fitted = fit_montages({"5-10y": tmp_path / "noise.png"})["5-10y"]
    assert len(fitted["uri"]) < MONTAGE_BYTES * 4 / 3 + 100


def test_montage_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "montage.png").write_text("nothing")
    with pytest.raises(PedfracError, match=r"montage\.png: cannot be read as an image"):
        fit_montages({"x": tmp_path / "montage.png"})
