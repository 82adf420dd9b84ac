"""A map of what the network uses beats the centre prior; one of what it does not, loses."""

import numpy as np
import pytest
from small_networks import square

from pedfrac.explanation.faithfulness import STEPS, faithfulness_figures
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
PLACES = np.random.default_rng(0).integers(0, 4, (12, 2)) * 6  # in the upper left quarter
FILMS = np.stack([square(64, x + 8, y + 8, 8) for x, y in PLACES])
WINDOWS = [(4, 0, 60, 64)] * len(FILMS)


def sharpness(films):
    """Return how much of the square is as bright as it was drawn."""
    return (films > 200).mean(axis=(1, 2)) * 64 * 64 / 64


def figures_of(maps):
    bootstrap = PatientBootstrap(np.arange(len(maps)), 0, 0)
    return faithfulness_figures(
        sharpness, FILMS[: len(maps)], maps, WINDOWS[: len(maps)], bootstrap
    )


def test_the_square_itself_is_faithful():
    figures = figures_of((FILMS > 200).astype(np.float32))
    # All of the square is among the first tenth of the film's pixels: the curve falls in one step.
    assert figures["deletion"]["map"]["value"] == pytest.approx(0.5 / STEPS, abs=0.01)
    assert figures["insertion"]["map"]["value"] == pytest.approx(1 - 0.5 / STEPS, abs=0.01)
    assert figures["deletion"]["beats_centre_prior"] is True
    assert figures["insertion"]["beats_centre_prior"] is True


def test_all_but_the_square_is_not():
    figures = figures_of((FILMS < 200).astype(np.float32))
    assert figures["deletion"]["beats_centre_prior"] is False
    assert figures["insertion"]["beats_centre_prior"] is False
    assert figures["deletion"]["map_minus_centre_prior"]["low"] > 0


def test_flat_maps_and_no_films_are_no_error():
    assert 0 < figures_of(np.zeros(FILMS.shape, np.float32))["deletion"]["map"]["value"] < 1
    none = figures_of(np.zeros((0, 64, 64), np.float32))
    assert none["insertion"]["map"]["reason"] == "no fractured film"
    assert none["insertion"]["beats_centre_prior"] is None


def test_beside_the_film_nothing_changes():
    def margin(films):
        return (films[:, :, :4] == films[0, 0, 0]).mean(axis=(1, 2)).astype(float)

    maps = np.random.default_rng(0).random(FILMS.shape, np.float32)
    bootstrap = PatientBootstrap(np.arange(len(FILMS)), 0, 0)
    figures = faithfulness_figures(margin, FILMS, maps, WINDOWS, bootstrap)
    assert figures["deletion"]["map"]["value"] == figures["insertion"]["map"]["value"] == 1
