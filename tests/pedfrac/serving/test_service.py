"""A bundle that answers requests: as `pedfrac predict` does, whatever way an image comes."""

import base64

import cv2
import numpy as np
import pandas as pd
import pytest
from dicom_files import SECRETS, write_dicom
from mixed_bundles import mixed_bundle
from small_bundles import write_image, write_small_bundle
from small_networks import CONVNEXT, SWIN

from pedfrac.bundle.bundle import Bundle, bundle_digest
from pedfrac.errors import PedfracError
from pedfrac.explanation.overlays import heat_layer
from pedfrac.explanation.saliency import FRACTURED, mean_maps
from pedfrac.imaging.letterbox import Placement
from pedfrac.serving.images import Image
from pedfrac.serving.prediction import COLUMNS, predict
from pedfrac.serving.score_table import as_records
from pedfrac.serving.service import ANSWERS, Served


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_bundle(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def served(folder):
    return Served.load(folder, "cpu")


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path / "image.png")


def coded(path):
    return base64.b64encode(path.read_bytes()).decode()


def request(*rows):
    return pd.DataFrame(list(rows))


def scores(answers):
    """Return what is said of images, whatever they are called."""
    return answers[[name for name in COLUMNS if name != "file"]].to_dict("records")


def test_answers_are_those_of_predict_however_a_image_comes(served, folder, image, tmp_path):
    jpeg = tmp_path / "image.jpg"
    cv2.imwrite(str(jpeg), cv2.imread(str(image), cv2.IMREAD_GRAYSCALE))
    dicom = write_dicom(tmp_path / "a.dcm", cv2.imread(str(image), cv2.IMREAD_UNCHANGED))
    paths = [image, jpeg, dicom]
    expected = predict(Bundle.load(folder), [Image(path, 7.5) for path in paths])
    expected = scores(pd.DataFrame(as_records(expected)))
    rows = [{"path": str(path), "age": 7.5} for path in paths]
    assert scores(served.answer(request(*rows))) == expected
    wrapped = base64.encodebytes(image.read_bytes()).decode()
    for first in (wrapped, image.read_bytes()):
        rows[0] = {"image": first, "age": 7.5}
        rows[2] = {"image": coded(dicom), "age": 7.5}
        answers = served.answer(request(*rows))
        assert scores(answers) == expected
        assert answers["file"].tolist() == ["row 1", str(jpeg), "row 3"]
    assert len({row["probability"] for row in expected}) == 3


def test_abstention_and_bundle_are_told(served, folder, image):
    answers = served.answer(request({"path": str(image), "age": 3.0}, {"path": str(image)}))
    assert answers["call"].tolist() == ["fractured", "left to a reader"]
    assert answers["left_to_reader"].tolist() == [False, True]
    assert set(answers["bundle"]) == {bundle_digest(folder)[:16]}
    assert set(answers.columns) == set(ANSWERS) - {"heat_map"}


def test_a_bad_image_is_answered_with_its_error(served, image, tmp_path):
    missing = str(tmp_path / "none.png")
    cut = image.read_bytes()[:400]
    answers = served.answer(
        request({"image": cut}, {"path": missing}, {"path": str(image)}), heat_map=True
    )
    first, second, third = answers.to_dict("records")
    assert first["error"].startswith("row 1: must be a whole PNG or JPEG")
    assert second["error"] == f"{missing}: cannot be read (No such file or directory)"
    for failed in (first, second):
        assert [failed[name] for name in ("probability", "left_to_reader", "heat_map")] == [
            None
        ] * 3
    assert third["error"] == "" and 0 < third["probability"] < 1 and third["heat_map"]


def test_nothing_of_a_patient_is_told_or_left(served, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    pixels = np.zeros((60, 40), np.uint16)
    chest = write_dicom(tmp_path / "chest.dcm", pixels, BodyPartExamined="CHEST")
    answers = served.answer(request({"image": chest.read_bytes()}))
    assert answers["error"][0].startswith("row 1")
    told = str(answers.to_dict("records")) + caplog.text
    assert not [secret for secret in SECRETS if secret in told]
    assert not list((tmp_path / "temporary").iterdir())


def test_the_heat_map_lies_over_its_image(image, tmp_path):
    served = Served.load(mixed_bundle(tmp_path / "bundle", CONVNEXT, SWIN), "cpu")
    rows = request({"path": str(image), "age": 7.5}, {"path": str(image), "age": 3.0})
    seen = []
    predict(
        served.bundle,
        [Image(image, age) for age in rows["age"]],
        witness=lambda images, _: seen.extend(images),
    )
    opacity = []
    for number, answer in enumerate(served.answer(rows, heat_map=True)["heat_map"]):
        drawn = cv2.imdecode(
            np.frombuffer(base64.b64decode(answer), np.uint8), cv2.IMREAD_UNCHANGED
        )
        assert drawn.shape == (60, 40, 4)  # as the image, with opacity
        networks = list(served.bundle.chosen(1 - number).values())
        heat = mean_maps(
            networks,
            seen[number].fracture_image[None],
            FRACTURED,
            "gradcam",
            device=served.bundle.device,
        )[0]
        layer = heat_layer(heat, (60, 40))
        np.testing.assert_array_equal(drawn, cv2.cvtColor(layer, cv2.COLOR_RGBA2BGRA))
        opacity += [layer[..., 3].max()]
    assert max(opacity) > 150  # one of the networks sees evidence


def test_the_heat_lies_where_it_was_seen_in_the_image():
    place = Placement.of(100, 50, 32)
    heat = np.zeros((32, 32), np.float32)
    top, left = int(np.ceil(0.75 * 32)), place.dx + place.inner[1] // 2
    heat[top:, left:] = 1
    opacity = heat_layer(heat, (100, 50))[..., 3]
    assert opacity[80:, 30:].min() == opacity.max() == 191
    assert opacity[:70].max() == opacity[:, :20].max() == 0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "must have rows, and of the columns image, path, age image or path"),
        ([{"age": 3.0}], "image or path"),
        ([{"image": b"x", "path": "x"}], "row 1: must hold image or path, found both"),
        ([{"path": "x"}, {"image": None}], "row 2: must hold image or path, found neither"),
        ([{"image": "&&"}], "row 1: image must be bytes or base64"),
        ([{"image": 7}], "row 1: image must be bytes or base64"),
        ([{"path": "x", "age": -1.0}], "row 1: age -1.0 is no number of years 0-120"),
    ],
)
def test_a_wrong_request_is_refused_by_row(served, rows, said):
    with pytest.raises(PedfracError, match=said):
        served.answer(request(*rows))
