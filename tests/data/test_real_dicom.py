"""Real radiographs wrapped as DICOM: the same scores as the PNGs that they were made of."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from dicom_files import write_dicom
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from small_bundles import write_small_bundle

from pedfrac.bundle.bundle import Bundle
from pedfrac.imaging.dicom import read_radiograph
from pedfrac.serving.images import find_images
from pedfrac.serving.prediction import predict

IMAGES = Path(__file__).parents[2].parent / "shared" / "data" / "grazpedwri" / "images"

pytestmark = pytest.mark.skipif(not IMAGES.is_dir(), reason=f"the real images are not at {IMAGES}")

WRAPPINGS = {
    "monochrome2": (ExplicitVRLittleEndian, False),
    "monochrome1": (ExplicitVRLittleEndian, True),
    "jpeg2000": (JPEG2000Lossless, False),
    "jpeg2000-inverted": (JPEG2000Lossless, True),
    "rle": (RLELossless, False),
}


@pytest.fixture(scope="module")
def pngs():
    return sorted(IMAGES.glob("*.png"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.load(write_small_bundle(tmp_path_factory.mktemp("networks")))


@pytest.fixture(scope="module")
def scores(bundle, pngs):
    return predict(bundle, find_images(pngs, {png.stem: 10.0 for png in pngs}))


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapped_images_have_the_scores_of_the_pngs(wrapping, bundle, pngs, scores, tmp_path):
    syntax, inverted = WRAPPINGS[wrapping]
    for png in pngs:
        pixels = cv2.imread(str(png), cv2.IMREAD_UNCHANGED)
        stored = 65535 - pixels if inverted else pixels
        photometric = "MONOCHROME1" if inverted else "MONOCHROME2"
        path = tmp_path / f"{png.stem}.dcm"
        write_dicom(path, stored, syntax, PhotometricInterpretation=photometric)
        assert np.array_equal(read_radiograph(path).pixels, pixels)
    found = predict(bundle, find_images([tmp_path]))
    assert len(found) == 14
    told = ["probability", "threshold", "call", "age", "age_group_used", "routed_by", "network"]
    pd.testing.assert_frame_equal(found[told], scores[told], check_exact=True)
    assert set(found["laterality"]) == {"L"} and set(found["markers"]) == {"left"}
    assert scores["probability"].nunique() == 14
