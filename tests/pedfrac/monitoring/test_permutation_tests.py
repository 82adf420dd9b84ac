"""Statistics of change: against their textbook forms, and how often no change is called one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist

from pedfrac.monitoring.permutation_tests import (
    Images,
    chi_square,
    compare,
    energy_distance,
    kolmogorov_smirnov,
    quantile_bins,
    stability_index,
)

VALUES = st.lists(st.integers(0, 8), min_size=1, max_size=12)


def images_of(window, patient=None, stratum=None, known=True, draws=199):
    window = np.asarray(window, bool)
    patient = np.arange(len(window)) if patient is None else np.asarray(patient)
    stratum = np.zeros(len(window), int) if stratum is None else np.asarray(stratum)
    return Images(window, patient, stratum, known, draws, 0)


def seen(statistic, images):
    return statistic(*images.seen(np.ones(len(images.window), bool)))[0]


def sides(reference, window):
    values = np.array([*reference, *window], float)
    return values, images_of(np.arange(len(values)) >= len(reference))


@given(VALUES, VALUES)
def test_the_distance_of_distributions_is_that_of_scipy(reference, window):
    values, images = sides(reference, window)
    wanted = stats.ks_2samp(reference, window).statistic
    assert seen(kolmogorov_smirnov(values), images) == pytest.approx(wanted, abs=1e-5)


@given(VALUES, VALUES)
def test_the_energy_distance_is_that_of_scipy(reference, window):
    values, images = sides(reference, window)
    between = cdist(np.c_[reference], np.c_[window]).mean()
    wanted = 2 * stats.energy_distance(reference, window) ** 2 / between if between else 0
    assert seen(energy_distance(values[:, None]), images) == pytest.approx(wanted or 0, abs=1e-3)


def test_the_stability_index_is_that_of_the_books():
    values, images = sides([0] * 60 + [1] * 40, [0] * 20 + [1] * 30)
    kinds = values[:, None] == [0, 1]
    wanted = (0.4 - 0.6) * np.log(0.4 / 0.6) + (0.6 - 0.4) * np.log(0.6 / 0.4)
    assert seen(stability_index(kinds, 50, 100), images) == pytest.approx(wanted, rel=1e-4)


def test_a_kind_that_one_side_lacks_has_a_finite_index():
    values, images = sides([0] * 50, [1] * 50)
    kinds = values[:, None] == [0, 1]
    assert np.isfinite(seen(stability_index(kinds, 50, 50), images))


def test_bins_hold_as_many_images_of_the_reference():
    values = np.random.default_rng(0).normal(size=1000)
    assert quantile_bins(values, values).sum(axis=0).tolist() == [100] * 10


def p_of(images, values, kind=kolmogorov_smirnov):
    statistic = kind(values)
    return compare(images, np.ones(len(values), bool), statistic, statistic)["p"]


@pytest.mark.parametrize("known", [True, False])
def test_no_change_is_called_one_as_often_as_stated(known):
    """Whole patients of four images each, who alone differ: images by themselves would mislead."""
    calls, naive = [], []
    for seed in range(150):
        random = np.random.default_rng(seed)
        owner = np.repeat(np.arange(60), 4)
        values = random.normal(size=60)[owner] + 0.1 * random.normal(size=240)
        window = owner >= 40
        alone = np.where(window, np.arange(240) + 60, owner)
        calls.append(p_of(images_of(window, owner if known else alone, known=known), values) <= 0.1)
        naive.append(p_of(images_of(window), values) <= 0.1)
    assert np.mean(calls) <= 0.16  # of 150 with a rate of .1 more come once in a hundred times
    assert np.mean(naive) > 0.3


def test_a_shift_is_found():
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(size=100), random.normal(1, size=60)])
    assert p_of(images_of(np.arange(160) >= 100), values) == 1 / 200


def test_what_each_patient_has_as_much_of_is_no_change():
    kinds = np.tile([[True, False], [False, True]], (30, 1))
    images = images_of(np.arange(60) >= 40, np.repeat(np.arange(30), 2))
    assert p_of(images, kinds, chi_square) == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_weights_have_one_sum_and_one_mix(seed):
    random = np.random.default_rng(seed)
    window, stratum = np.arange(60) >= 40, random.integers(0, 3, 60)
    patient = random.integers(0, 2, 60) + 2 * (np.arange(60) // 4)
    images = images_of(window, patient, stratum, draws=20)
    for ours, theirs in images.weights(np.ones(60, bool)):
        for kind in range(3):
            shares = [side[:, stratum == kind].sum(axis=1) for side in (ours, theirs)]
            np.testing.assert_allclose(*shares, atol=1e-5)


def test_another_mix_of_strata_is_no_change_within_them():
    """Values differ between strata alone, and the window has more of one."""
    random = np.random.default_rng(0)
    stratum = np.concatenate([np.arange(100) % 2, np.arange(60) % 4 == 0]).astype(int)
    values = random.normal(size=160) + 5 * stratum
    window = np.arange(160) >= 100
    assert p_of(images_of(window, stratum=stratum), values) > 0.05
    assert p_of(images_of(window), values) < 0.01


def test_sides_without_a_common_stratum_are_not_compared():
    images = images_of([False, False, True, True], stratum=[0, 0, 1, 1])
    assert p_of(images, np.arange(4.0)) == 1
