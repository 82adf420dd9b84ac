"""Disturbed images are what their names say, and metrics fall for the network that they disturb."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pedfrac.config.evaluation import EvaluationConfig, RobustnessConfig
from pedfrac.errors import PedfracError
from pedfrac.evaluation.robustness import (
    WAYS,
    Robustness,
    choose_images,
    perturbations,
    robustness_metrics,
)

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
EVALUATION = EvaluationConfig()
SIZE = 48


def images(n: int = 6):
    """Images of grey grain and a bright bar, with black beside them."""
    rng = np.random.default_rng(0)
    made = np.zeros((n, SIZE, SIZE), np.uint8)
    made[:, :, 8:40] = rng.integers(60, 120, (n, SIZE, 32))
    made[:, 4:40, 20:26] = 200
    return made


def disturbed(name: str, strength: float, some=None):
    """Return images disturbed in one way."""
    (way,) = [
        way
        for way in perturbations(RobustnessConfig.model_validate({name: [strength]}))
        if way.name == name
    ]
    return way.disturb(images() if some is None else some)


def test_all_that_is_configured_is_done_in_order():
    config = RobustnessConfig(rotation=(3,), noise=(), jpeg=(90, 10))
    done = [(way.name, way.strength) for way in perturbations(config)]
    assert done[0] == ("rotation", 3)
    assert done[-2:] == [("jpeg", 90), ("jpeg", 10)]
    assert "noise" not in dict(done)
    assert set(WAYS) < set(RobustnessConfig.model_fields)


@pytest.mark.parametrize(
    "way", perturbations(RobustnessConfig()), ids=lambda way: f"{way[0]}{way[1]}"
)
def test_every_way_changes_the_image_in_place_and_always_alike(way):
    before = images()
    once = way.disturb(before)
    assert once.shape == before.shape and once.dtype == np.uint8
    np.testing.assert_array_equal(before, images())
    np.testing.assert_array_equal(once, way.disturb(before))
    np.testing.assert_array_equal(once[:2], way.disturb(before[:2]))
    assert (once != before).any(axis=(1, 2)).all()
    assert way.disturb(before[:0]).shape == (0, SIZE, SIZE)


@pytest.mark.parametrize("name", [name for name in WAYS if name != "rotation"])
def test_the_stronger_the_farther(name):
    strengths = getattr(RobustnessConfig(), name)
    distance = [np.abs(disturbed(name, s).astype(float) - images()).mean() for s in strengths]
    assert distance == sorted(distance) and distance[0] < distance[1]


@pytest.mark.parametrize("name", ["brightness", "noise"])
def test_beside_the_image_it_stays_black(name):
    found = disturbed(name, 0.3)
    assert not found[:, :, :8].any() and not found[:, :, 40:].any()


def test_a_quarter_turn_is_exact_and_goes_either_way():
    some = images(16)
    turned = disturbed("rotation", 90, some)
    left, right = (np.rot90(some, k, axes=(1, 2)) for k in (1, -1))
    ways = [
        int((one == a).all()) - int((one == b).all())
        for one, a, b in zip(turned, left, right, strict=True)
    ]
    assert set(ways) == {-1, 1}


def test_brightness_is_a_gain_and_noise_has_its_spread():
    middle = (slice(None), slice(None), slice(8, 40))
    gains = (disturbed("brightness", 0.2)[middle] / images()[middle]).mean(axis=(1, 2))
    assert {round(float(gain), 1) for gain in gains} == {0.8, 1.2}
    noise = disturbed("noise", 0.05)[middle].astype(float) - images()[middle]
    assert noise.std() == pytest.approx(0.05 * 255, rel=0.05)
    assert abs(noise.mean()) < 0.5


def test_a_lower_resolution_keeps_even_grey_and_loses_grain():
    even = np.full((1, SIZE, SIZE), 77, np.uint8)
    np.testing.assert_array_equal(disturbed("resolution", 4, even), even)
    grain = images()[:, :, 8:20].astype(float).std()
    assert disturbed("resolution", 4)[:, :, 10:18].astype(float).std() < grain / 2


@given(st.lists(st.integers(0, 12), max_size=60), st.integers(0, 40), st.integers(0, 5))
def test_images_are_chosen_by_whole_patients(patients, most, seed):
    patients = np.array(patients, np.int64)
    chosen = choose_images(patients, RobustnessConfig(images=most, seed=seed))
    assert len(chosen) <= most
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert not set(patients[chosen]) & set(np.delete(patients, chosen))
    if most >= len(patients):
        assert len(chosen) == len(patients)


def test_another_seed_chooses_other_patients():
    patients = np.repeat(np.arange(50), 2)
    first, second = (choose_images(patients, RobustnessConfig(images=20, seed=s)) for s in (0, 1))
    assert len(first) == len(second) == 20
    assert first.tolist() != second.tolist()


def grain_images(n: int):
    """Every second image has grain of full contrast, the others are smooth."""
    rng = np.random.default_rng(1)
    made = np.full((n, SIZE, SIZE), 100, np.uint8)
    made[::2] = rng.integers(60, 140, (len(made[::2]), SIZE, SIZE))
    made[1::2] += rng.integers(0, 20, (len(made[1::2]), SIZE, SIZE), dtype=np.uint8)
    return made, np.arange(n) % 2 == 0


def grain(some):
    """Score images by their grain, from 0 to 1."""
    return np.minimum(some.astype(float).std(axis=(1, 2)) / 30, 1)


def test_a_network_that_sees_grain_fails_on_blurred_images_only():
    some, truth = grain_images(40)
    metrics = robustness_metrics(
        grain, some, truth, np.arange(40), 0.5, RobustnessConfig(blur=(4,)), EVALUATION
    )
    assert Robustness.model_validate(json.loads(metrics.model_dump_json())) == metrics
    assert (metrics.images, metrics.patients, metrics.fractured) == (40, 40, 20)
    assert metrics.undisturbed.sensitivity.value == 1
    rows = {(row.name, row.strength): row for row in metrics.perturbations}
    blurred = rows["blur", 4]
    assert blurred.sensitivity.value == 0
    assert blurred.change.sensitivity.high < 0
    assert blurred.specificity.value == 1
    assert blurred.change.specificity.value == 0
    slight = rows["noise", 0.02]
    assert slight.auroc.value == 1 and slight.change.sensitivity.value == 0


def test_augmentation_is_the_mean_of_its_views():
    rng = np.random.default_rng(0)
    some = rng.integers(0, 255, (30, SIZE, SIZE), dtype=np.uint8)
    truth = rng.random(30) < 0.5
    some[truth, :, : SIZE // 2] //= 4  # dark on the left

    def brighter_right(images):
        half = images.astype(float).reshape(len(images), SIZE, 2, SIZE // 2).mean(axis=(1, 3))
        return half[:, 1] / half.sum(axis=1).clip(1e-9)

    metrics = robustness_metrics(
        brighter_right, some, truth, np.arange(30), 0.6, RobustnessConfig(), EVALUATION
    )
    rows = {row.name: row for row in metrics.test_time_augmentation}
    assert [row.views for row in rows.values()] == [2, 3, 4]
    assert metrics.undisturbed.auroc.value == 1
    # The mirror image says the opposite: the mean of both is one half for every image.
    assert rows["mirrored"].sensitivity.value == 0
    assert rows["mirrored"].change.auroc.value < -0.2
    turned = rows["turned by 5 degrees either way"]
    assert turned.auroc.value == 1
    assert turned.change.auroc.value == 0


def test_each_image_may_have_a_threshold_of_its_own():
    some, truth = grain_images(20)
    strict = np.where(np.arange(20) < 10, 0.5, 1.1)
    metrics = robustness_metrics(
        grain, some, truth, np.arange(20), strict, RobustnessConfig(), EVALUATION
    )
    assert metrics.undisturbed.sensitivity.value == 0.5


@pytest.mark.parametrize(
    ("n", "reason"), [(0, "no images"), (1, "only fractured images")], ids=["none", "one"]
)
def test_few_images_have_stated_reasons(n, reason):
    some, truth = grain_images(n)
    metrics = robustness_metrics(
        grain, some, truth, np.arange(n), 0.5, RobustnessConfig(), EVALUATION
    )
    for row in (*metrics.perturbations, *metrics.test_time_augmentation):
        assert row.auroc.reason == row.change.auroc.reason == reason
        assert row.specificity.reason == "no normal images"
        assert row.change.sensitivity.low is None


def test_scores_that_are_no_numbers_are_refused():
    some, truth = grain_images(4)

    def broken(images):
        return np.where(images[:, 0, 0] == some[:, 0, 0], 0.5, np.nan)

    with pytest.raises(PedfracError, match=r"rotation: each of 4 images must have a score"):
        robustness_metrics(
            broken, some, truth, np.arange(4), 0.5, RobustnessConfig(rotation=(15,)), EVALUATION
        )
