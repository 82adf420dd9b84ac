"""A map of what the network uses beats the centre prior; one of what it does not, loses."""

import numpy as np
import pytest
import torch
from small_networks import square

from pedfrac.explanation.faithfulness import BETTER, faithfulness_metrics
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
PLACES = np.random.default_rng(0).integers(0, 4, (12, 2)) * 6  # in the upper left quarter
IMAGES = np.stack([square(64, x + 8, y + 8, 8) for x, y in PLACES])
WINDOWS = [(4, 0, 60, 64)] * len(IMAGES)


def sharpness(images):
    """Return how much of the square is as bright as it was drawn."""
    return (images > 200).mean(axis=(1, 2)) * 64 * 64 / 64


def metrics_of(maps):
    bootstrap = PatientBootstrap(np.arange(len(maps)), 0, 0)
    return faithfulness_metrics(
        sharpness, IMAGES[: len(maps)], maps, WINDOWS[: len(maps)], bootstrap
    )


def test_the_square_itself_is_faithful():
    metrics = metrics_of((IMAGES > 200).astype(np.float32))
    # All of the square is among the first fifth of the image's pixels.
    assert metrics.most_relevant_first.map.value == pytest.approx(-1, abs=0.05)
    for name in BETTER:
        assert getattr(metrics, name).beats_centre_prior is True


def test_all_but_the_square_is_not():
    metrics = metrics_of((IMAGES < 200).astype(np.float32))
    for name in BETTER:
        assert getattr(metrics, name).beats_centre_prior is False
    assert metrics.most_relevant_first.map_minus_centre_prior.low > 0


def test_the_combined_metric_is_half_the_difference_of_the_others():
    metrics = metrics_of(np.random.default_rng(1).random(IMAGES.shape, np.float32))
    least, most = metrics.least_relevant_first, metrics.most_relevant_first
    for found in (least.map, most.map, most.centre_prior, metrics.combined.map):
        assert found.low < found.value < found.high
    expected = (least.map.value - most.map.value) / 2
    assert metrics.combined.map.value == pytest.approx(expected)


def test_equal_input_gives_equal_metrics_and_leaves_the_random_state():
    maps = (IMAGES > 200).astype(np.float32)
    state = torch.random.get_rng_state()
    assert metrics_of(maps) == metrics_of(maps)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_flat_maps_and_no_images_are_no_error():
    assert -1 < metrics_of(np.zeros(IMAGES.shape, np.float32)).most_relevant_first.map.value < 0
    none = metrics_of(np.zeros((0, 64, 64), np.float32))
    assert none.combined.map.reason == "no fractured image"
    assert none.combined.beats_centre_prior is None


def test_beside_the_image_nothing_changes():
    def margin(images):
        return (images[:, :, :4] == images[0, 0, 0]).mean(axis=(1, 2)).astype(float)

    maps = np.random.default_rng(0).random(IMAGES.shape, np.float32)
    bootstrap = PatientBootstrap(np.arange(len(IMAGES)), 0, 0)
    metrics = faithfulness_metrics(margin, IMAGES, maps, WINDOWS, bootstrap)
    assert metrics.most_relevant_first.map.value == metrics.combined.map.value == 0
