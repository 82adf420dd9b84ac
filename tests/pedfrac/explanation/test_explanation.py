"""A group's metrics have known answers, its pictures are what they say, errors come first."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_networks import CPU, brightness, square

from pedfrac.config.data import Preparation
from pedfrac.config.evaluation import ExplanationConfig
from pedfrac.data.schema import CLASSES
from pedfrac.explanation.explanation import explain_group
from pedfrac.explanation.metrics import GroupExplanation
from pedfrac.explanation.outcomes import VERDICTS
from pedfrac.explanation.overlays import MONTAGE_ROWS
from pedfrac.packs.pack import Pack

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

SIZE = 64


def make_pack(n: int) -> Pack:
    """Images with a bright square; every second has a box: around the square, save of image 0."""
    rng = np.random.default_rng(1)
    places = rng.integers(20, 36, (n, 2))
    images = np.stack([square(SIZE, x, y, 10) for x, y in places])
    stems = [f"{row:04}_image" for row in range(n)]
    index = pd.DataFrame(
        {
            "filestem": stems,
            "patient_id": np.arange(n) // 2,
            "age": np.linspace(5, 9.9, n),
            "width": 300,
            "height": 600,
        }
    )
    rows = np.arange(0, n, 2)
    corners = np.concatenate([places[rows] - 1, places[rows] + 11], axis=1).astype(float)
    corners[0] = [17, 1, 22, 4]
    boxes = pd.DataFrame(corners, columns=["x1", "y1", "x2", "y2"])
    boxes = boxes.assign(row=rows, class_id=CLASSES.index("fracture"))
    return Pack(images, index, boxes, Preparation(size=SIZE))


def explain(folder, n=12, most=5, rows=None, probability=None, model=None, **options):
    pack = make_pack(n)
    rows = np.arange(n) if rows is None else rows
    truth = rows % 2 == 0
    if probability is None:  # images 0, 3 and 6 are judged wrongly
        probability = np.where(truth == (rows % 3 != 0), 0.9, 0.1) + rows / 1000
    options = {"images_per_group": most, "checked_images": 2, **options}
    config = ExplanationConfig.model_validate(options)
    model = model or brightness()
    return explain_group(
        folder, "5-10y", model, pack, rows, truth, probability, 0.5, config, device=CPU
    )


def test_group_metrics_have_known_answers(tmp_path):
    metrics = explain(tmp_path)
    written = (tmp_path / "5-10y" / "metrics.json").read_text()
    assert metrics == GroupExplanation.model_validate_json(written)
    assert (metrics.group, metrics.images, metrics.with_boxes) == ("5-10y", 12, 6)
    found = metrics.methods["gradcam"].localisation
    assert found.pointing.map.value == pytest.approx(5 / 6)
    # Six patients have a box: t of 5 degrees of freedom on the logit scale, in closed form.
    assert found.pointing.map.low == pytest.approx(0.186, abs=2e-3)
    assert found.pointing.map.high == pytest.approx(0.991, abs=2e-3)
    energy = found.energy.map
    assert 0 < energy.low < energy.value < energy.high < 1
    # Boxes of 12 x 12 and one of 5 x 3 on images that fill half the letterbox.
    chance = found.iou.chance
    assert chance.value == pytest.approx((5 * 144 + 15) / 6 / (SIZE * SIZE / 2))
    assert chance.low < chance.value < chance.high
    assert found.iou.beats_chance is found.energy.beats_centre_prior is True
    assert metrics.pointing == found.pointing.map
    assert (metrics.mass, metrics.chance) == (energy, chance.value)


def test_further_methods_are_measured_beside_and_not_drawn(tmp_path):
    alone = explain(tmp_path / "alone", method="hirescam")
    metrics = explain(tmp_path / "both", compared=("hirescam", "gradcam"))
    assert list(metrics.methods) == ["gradcam", "hirescam"]
    assert metrics.methods["hirescam"] == alone.methods["hirescam"]
    assert len(metrics.pictures) == 5


def test_an_average_of_networks_is_explained_as_one(tmp_path):
    one = explain(tmp_path / "one")
    two = explain(tmp_path / "two", model=[brightness(), brightness()])
    assert (one.networks, two.networks) == (1, 2)
    metrics = [each.methods["gradcam"].localisation for each in (one, two)]
    assert metrics[0] == metrics[1]
    blind = explain(tmp_path / "blind", model=[brightness(sign=0)] * 2)
    assert blind.pointing.value == 0


def test_the_checks_are_made_on_so_many_images_and_can_be_left_out(tmp_path):
    checked = explain(tmp_path / "a", checked_images=4, faithfulness="road")
    metrics = checked.methods["gradcam"]
    assert metrics.random_weights.images == metrics.faithfulness.images == 4
    off = explain(tmp_path / "b", checked_images=0, faithfulness="road")
    metrics = off.methods["gradcam"]
    assert metrics.random_weights is metrics.faithfulness is None


def test_misses_and_false_alarms_come_first_in_the_montage():
    assert list(MONTAGE_ROWS) == ["miss", "false-alarm", "hit"]
    assert all("worst" in VERDICTS[verdict][2] for verdict in ("miss", "false-alarm"))


def test_errors_of_both_kinds_are_shown_first(tmp_path):
    probability = np.array([0.2, 0.6, 0.1, 0.9, 0.8, 0.7, 0.95, 0.2, 0.51, 0.1])
    metrics = explain(tmp_path, n=10, most=8, probability=probability)
    assert metrics.pictures == [
        "0002_image_miss.png",
        "0003_image_false-alarm.png",
        "0000_image_miss.png",
        "0005_image_false-alarm.png",
        "0001_image_false-alarm.png",
        "0006_image_hit.png",
        "0004_image_hit.png",
        "0008_image_hit.png",
    ]
    assert metrics.verdicts == {"hit": 3, "miss": 2, "false-alarm": 3, "correct-rejection": 2}
    written = {path.name for path in (tmp_path / "5-10y").iterdir()}
    assert written == {*metrics.pictures, "montage.png", "metrics.json"}


def test_the_same_images_make_the_same_bytes(tmp_path):
    explain(tmp_path / "a", most=2)
    explain(tmp_path / "b", most=2)
    for path in (tmp_path / "a" / "5-10y").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "5-10y" / path.name).read_bytes()


def test_a_montage_of_noise_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr("pedfrac.explanation.overlays.MONTAGE_BYTES", 40_000)
    explain(tmp_path, most=1)
    path = tmp_path / "5-10y" / "montage.png"
    assert path.stat().st_size <= 40_000
    with Image.open(path) as picture:
        assert picture.mode == "RGB"


def test_a_group_without_boxes_says_why_it_has_no_metrics(tmp_path):
    metrics = explain(tmp_path, rows=np.array([1, 3, 5]), faithfulness="road")
    measured = metrics.methods["gradcam"]
    for _, found in measured.localisation:
        for name in ("map", "centre_prior", "chance", "map_minus_centre_prior"):
            one = getattr(found, name)
            assert one.value is one.low is None
            assert one.reason == "no image with a fracture box"
        assert found.beats_chance is None
    assert measured.random_weights.changes is None
    assert measured.random_weights.reason == "no fractured image whose map is not flat"
    assert measured.faithfulness.most_relevant_first.map.reason == "no fractured image"
    assert metrics.chance is None


@pytest.mark.parametrize("rows", [[2], [2, 2]], ids=["one image", "one patient"])
def test_one_patient_has_no_interval(tmp_path, rows):
    metrics = explain(tmp_path, rows=np.array(rows), faithfulness="road")
    measured = metrics.methods["gradcam"]
    assert measured.localisation.energy.map.value > 0.5
    for found in (
        measured.localisation.energy.map,
        measured.localisation.iou.map_minus_centre_prior,
        measured.random_weights.stages[-1].similarity,
        measured.faithfulness.combined.map,
    ):
        assert (found.low, found.reason) == (None, "one patient")
    assert measured.random_weights.changes is None


def test_flat_maps_have_the_metrics_of_chance(tmp_path):
    metrics = explain(tmp_path, model=brightness(sign=0), faithfulness="road")
    measured = metrics.methods["gradcam"]
    found = measured.localisation
    assert found.pointing.map.value == 0
    assert found.energy.map == found.iou.map == found.iou.chance
    assert measured.random_weights.images == 0
    assert measured.random_weights.changes is None


def test_an_empty_group_has_a_montage_that_says_so(tmp_path):
    metrics = explain(tmp_path, rows=np.array([], np.int64), faithfulness="road")
    assert metrics.images == 0
    assert metrics.mass.reason == "no image with a fracture box"
    assert (tmp_path / "5-10y" / "montage.png").exists()
