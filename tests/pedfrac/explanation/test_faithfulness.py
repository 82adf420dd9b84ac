"""A map of what the network uses beats the centre prior; one of what it does not, loses."""

import numpy as np
import pytest
from small_networks import square

from pedfrac.explanation.faithfulness import STEPS, faithfulness_metrics
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
    # All of the square is among the first tenth of the image's pixels: the curve falls in one step.
    assert metrics.deletion.map.value == pytest.approx(0.5 / STEPS, abs=0.01)
    assert metrics.insertion.map.value == pytest.approx(1 - 0.5 / STEPS, abs=0.01)
    assert metrics.deletion.beats_centre_prior is True
    assert metrics.insertion.beats_centre_prior is True


def test_all_but_the_square_is_not():
    metrics = metrics_of((IMAGES < 200).astype(np.float32))
    assert metrics.deletion.beats_centre_prior is False
    assert metrics.insertion.beats_centre_prior is False
    assert metrics.deletion.map_minus_centre_prior.low > 0


def test_flat_maps_and_no_images_are_no_error():
    assert 0 < metrics_of(np.zeros(IMAGES.shape, np.float32)).deletion.map.value < 1
    none = metrics_of(np.zeros((0, 64, 64), np.float32))
    assert none.insertion.map.reason == "no fractured image"
    assert none.insertion.beats_centre_prior is None


def test_beside_the_image_nothing_changes():
    def margin(images):
        return (images[:, :, :4] == images[0, 0, 0]).mean(axis=(1, 2)).astype(float)

    maps = np.random.default_rng(0).random(IMAGES.shape, np.float32)
    bootstrap = PatientBootstrap(np.arange(len(IMAGES)), 0, 0)
    metrics = faithfulness_metrics(margin, IMAGES, maps, WINDOWS, bootstrap)
    assert metrics.deletion.map.value == metrics.insertion.map.value == 1
