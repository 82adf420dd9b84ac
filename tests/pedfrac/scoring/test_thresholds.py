"""Operating points on scores whose best threshold, predictive values and net benefit are known."""

import json

import numpy as np
import pytest
from drawn_images import images
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binomtest, norm
from sklearn import metrics as oracle

from pedfrac.config.evaluation import AbstentionConfig, EvaluationConfig
from pedfrac.evaluation.decision_curve import decision_curve
from pedfrac.scoring.thresholds import (
    Band,
    band_metrics,
    choose_band,
    choose_threshold,
    choose_thresholds,
)
from pedfrac.statistics.exact import lower_bounds
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

YOUDEN = EvaluationConfig(threshold="youden")
pytestmark = pytest.mark.filterwarnings("error")


def draw_right(seed, count):
    """Draw truths and probabilities that are right."""
    random = np.random.default_rng(seed)
    chance = expit(random.normal(0, 2.5, count))
    return random.random(count) < chance, chance


def metrics_of_band(truth, scores, band):
    patients = PatientBootstrap(np.arange(len(truth)), 0, 0)
    found = band_metrics(patients, truth, scores, band.low, band.high)
    json.dumps(found.model_dump(), allow_nan=False)
    return found


# ---- thresholds -------------------------------------------------------------------------------


@settings(deadline=None)
@given(images)
def test_youden_threshold_is_the_best_there_is(drawn):
    truth, scores = drawn[0] == 0, drawn[1][:, 0]
    config = EvaluationConfig(threshold="youden")
    threshold = choose_threshold(truth, scores, config)
    if truth.all() or not truth.any():
        assert threshold == config.fixed
        return
    alarms, hits, _ = oracle.roc_curve(truth, scores, drop_intermediate=False)
    best = (hits - alarms).max()
    call = scores >= threshold
    if best > 1e-12:
        assert call[truth].mean() - call[~truth].mean() == pytest.approx(best)
    else:
        assert threshold == config.fixed


@settings(deadline=None)
@given(images, st.floats(0.01, 1))
def test_sensitivity_threshold_reaches_its_target_and_no_larger_one_does(drawn, target):
    truth, scores = drawn[0] == 0, drawn[1][:, 0]
    if truth.all() or not truth.any():
        return
    config = EvaluationConfig(threshold="sensitivity", sensitivity=target, confidence=0)
    threshold = choose_threshold(truth, scores, config)
    called = scores >= threshold
    assert called[truth].mean() >= target - 1e-9
    above = scores > scores[called].min()
    assert above[truth].mean() < target


def test_thresholds_lie_midway_between_scores():
    truth, scores = np.array([False, False, True, True]), np.array([0.1, 0.2, 0.6, 0.9])
    assert choose_threshold(truth, scores, YOUDEN) == pytest.approx(0.4)
    one = EvaluationConfig(sensitivity=0.5, confidence=0)
    assert choose_threshold(truth, scores, one) == pytest.approx(0.75)
    fixed = EvaluationConfig(threshold="fixed", fixed=0.3)
    assert choose_threshold(truth, scores, fixed) == 0.3


def test_neighbouring_floats_are_told_apart():
    low = 0.5
    high = np.nextafter(low, 1)
    threshold = choose_threshold([False, True], [low, high], YOUDEN)
    assert low < threshold <= high


@settings(deadline=None)
@given(images)
def test_thresholds_of_groups_lie_between_their_own_and_the_pooled(drawn):
    truth, scores = drawn[0] == 0, drawn[1][:, 0]
    group = np.arange(len(truth)) % 3
    config = EvaluationConfig(threshold="youden", threshold_shrinkage=5)
    found = choose_thresholds(truth, scores, group, np.arange(len(truth)), 4, config)
    assert found.pooled == choose_threshold(truth, scores, config)
    for index, (threshold, weight) in enumerate(zip(found.groups, found.weights, strict=True)):
        some = group == index
        own = choose_threshold(truth[some], scores[some], config)
        if len(set(truth[some])) < 2:
            assert (threshold, weight) == (found.pooled, 0)
        else:
            assert weight == some.sum() / (some.sum() + 5)
            ends = sorted((own, found.pooled))
            assert ends[0] - 1e-6 <= threshold <= ends[1] + 1e-6


def test_without_shrinkage_each_group_has_its_own_threshold():
    truth = np.array([0, 1, 0, 1] * 5, bool)
    scores = np.array([0.1, 0.3, 0.5, 0.9] * 5)
    group = np.array([0, 0, 1, 1] * 5)
    config = EvaluationConfig(threshold="youden", threshold_shrinkage=0)
    found = choose_thresholds(truth, scores, group, np.arange(20), 2, config)
    assert found.groups == pytest.approx([0.2, 0.7])
    many = config.model_copy(update={"threshold_shrinkage": 10.0})
    found = choose_thresholds(truth, scores, group, np.arange(20), 2, many)
    assert found.groups[0] == pytest.approx(expit(np.mean([logit(0.2), logit(found.pooled)])))


@pytest.mark.parametrize(("hits", "trials"), [(0, 7), (7, 7), (19, 20), (45, 60)])
def test_lower_bounds_are_those_of_clopper_and_pearson(hits, trials):
    exact = binomtest(hits, trials, alternative="greater").proportion_ci(0.9).low
    assert lower_bounds(hits / trials, trials, 0.9) == pytest.approx(exact, abs=1e-9)


def test_the_target_is_reached_on_other_patients_as_often_as_is_claimed():
    """Two images a patient, alike: the bound must count patients, not images."""
    random, reached, plain = np.random.default_rng(0), [], []
    for _ in range(200):
        distance = random.normal(2.5, 1, 150)
        fractured = expit(np.repeat(distance, 2) + random.normal(0, 0.1, 300))
        normal = expit(random.normal(0, 1, 300))
        given = np.arange(600) < 300, np.concatenate([fractured, normal])
        patients = np.repeat(np.arange(300), 2)
        for config, found in (
            (EvaluationConfig(), reached),
            (EvaluationConfig(confidence=0), plain),
        ):
            threshold = choose_threshold(*given, config, patients)
            found.append(norm.sf(logit(threshold), 2.5, np.hypot(1, 0.1)) >= config.sensitivity)
    assert np.mean(reached) >= 0.85
    assert np.mean(plain) < 0.7


def test_with_too_few_patients_for_any_bound_the_point_estimate_decides():
    truth, scores = np.arange(20) < 10, np.linspace(1, 0, 20)
    plain = EvaluationConfig(confidence=0)
    assert choose_threshold(truth, scores, EvaluationConfig()) == choose_threshold(
        truth, scores, plain
    )


# ---- abstention -------------------------------------------------------------------------------


def test_a_band_reaches_its_predictive_values_on_other_images():
    config = AbstentionConfig(rule="predictive values", ppv=0.9, npv=0.95)
    band = choose_band(*draw_right(0, 4000), 0.5, config)
    truth, scores = draw_right(1, 4000)
    found = metrics_of_band(truth, scores, band)
    assert found.ppv.low < 0.9 < found.ppv.high + 0.01
    assert found.npv.low < 0.95 < found.npv.high + 0.01
    everyone = metrics_of_band(truth, scores, Band(0.5, 0.5))
    assert everyone.coverage.value == 1
    assert everyone.accuracy.value == pytest.approx(((scores >= 0.5) == truth).mean())
    assert 0.3 < found.coverage.value < 0.95
    assert found.accuracy.low > everyone.accuracy.high


@settings(deadline=None)
@given(images, st.floats(0.5, 1), st.floats(0.5, 1), st.floats(0, 1))
def test_bands_by_predictive_values_are_the_narrowest(drawn, ppv, npv, threshold):
    truth, scores = drawn[0] == 0, drawn[1][:, 0]
    config = AbstentionConfig(rule="predictive values", ppv=ppv, npv=npv, confidence=0)
    band = choose_band(truth, scores, threshold, config)

    def fine(called, target):
        return called.sum() >= 10 and truth[called].mean() >= target - 1e-9

    def fine_normal(called, target):
        return called.sum() >= 10 and (~truth[called]).mean() >= target - 1e-9

    highs = [t for t in {threshold, *scores} if t >= threshold and fine(scores >= t, ppv)]
    lows = [t for t in {threshold, *scores} if t <= threshold and fine_normal(scores < t, npv)]
    assert band.high == (min(highs) if highs else None)
    assert band.low == (max(lows) if lows else None)
    assert bool(band.reason) == (not highs or not lows)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 200), st.floats(0, 1), st.floats(0.05, 0.95))
def test_bands_by_coverage_call_so_many_images(seed, count, coverage, threshold):
    truth, scores = draw_right(seed, count)
    band = choose_band(
        truth, scores, threshold, AbstentionConfig(rule="coverage", coverage=coverage)
    )
    called = metrics_of_band(truth, scores, band).coverage.value * count
    assert called == pytest.approx(coverage * count, abs=0.51)


def test_without_a_rule_every_image_is_called():
    truth, scores = draw_right(3, 50)
    assert choose_band(truth, scores, 0.4, AbstentionConfig()) == (0.4, 0.4, "")
    config = AbstentionConfig(rule="coverage")
    assert choose_band([], [], 0.4, config) == (0.4, 0.4, "")


def test_predictive_values_are_missed_no_more_often_than_is_claimed():
    config = AbstentionConfig(rule="predictive values", ppv=0.9, npv=0.9)
    missed = []
    for seed in range(150):
        band = choose_band(*draw_right(seed, 400), 0.5, config)
        truth, scores = draw_right(seed + 1000, 20_000)
        below = scores < (-np.inf if band.low is None else band.low)
        missed.append(below.any() and (~truth[below]).mean() < 0.9)
    assert np.mean(missed) <= 0.1


def test_what_no_image_can_reach_is_said():
    truth = np.arange(60) % 2 == 0
    scores = np.full(60, 0.5)
    config = AbstentionConfig(rule="predictive values")
    band = choose_band(truth, scores, 0.5, config)
    assert (band.low, band.high) == (None, None)
    assert "positive predictive value of 0.95" in band.reason
    found = metrics_of_band(truth, scores, band)
    assert found.coverage.value == 0
    assert found.accuracy.reason == "no image was called"
    assert found.ppv.reason == "no image was called fractured"
    assert found.sensitivity.reason == "no fractured image was called"


# ---- decision curves --------------------------------------------------------------------------


def test_net_benefit_is_its_definition():
    truth, scores = draw_right(4, 300)
    found = decision_curve(PatientBootstrap(np.arange(300) // 2, 0, 0), truth, scores)
    json.dumps(found.model_dump(), allow_nan=False)
    for place, chance in enumerate(found.chances):
        (_, alarms), (_, hits) = oracle.confusion_matrix(truth, scores >= chance)
        odds = chance / (1 - chance)
        assert found.model[place].value == pytest.approx((hits - odds * alarms) / 300)
        everyone = truth.mean() - odds * (1 - truth.mean())
        assert found.all[place].value == pytest.approx(everyone)
        gain = found.model[place].value - max(everyone, 0)
        assert found.gain[place].value == pytest.approx(gain)
        assert found.gain[place].low <= gain <= found.gain[place].high


def test_right_probabilities_gain_and_a_constant_gains_nothing():
    truth, scores = draw_right(5, 1000)
    patients = PatientBootstrap(np.arange(1000), 0, 0)
    found = decision_curve(patients, truth, scores, (0.1, 0.3, 0.5, 0.7, 0.9))
    assert all(gain.low > 0 for gain in found.gain[1:4])
    constant = decision_curve(patients, truth, np.full(1000, 0.5), (0.2, 0.8))
    assert [gain.value for gain in constant.gain] == [0, 0]


def test_random_scores_seldom_seem_to_gain():
    alarms = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        truth, scores = random.random(100) < 0.5, random.random(100)
        patients = PatientBootstrap(np.arange(100) // 2, 0, 0)
        alarms += decision_curve(patients, truth, scores, (0.5,)).gain[0].low > 0
    assert alarms <= 12  # 2.5 % of 200 are 5


@pytest.mark.parametrize("truth", [[], [True] * 5, [False] * 5])
def test_curves_of_few_images_have_metrics_or_reasons(truth):
    scores = np.linspace(0.1, 0.9, len(truth))
    found = decision_curve(PatientBootstrap(np.arange(len(truth)), 0, 0), truth, scores)
    json.dumps(found.model_dump(), allow_nan=False)
    for interval in (*found.model, *found.gain):
        assert interval.low is not None or interval.reason
