"""Metrics and intervals against scikit-learn, naive loops and exact statistics."""

import warnings

import numpy as np
import pytest
from drawn_images import draw_images, images
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import bootstrap, norm
from sklearn import metrics as oracle

from pedfrac.statistics.classification import (
    auroc,
    average_precision_function,
    classification_metrics,
    confusion,
)
from pedfrac.statistics.intervals import Interval, missing, standard_error
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

pytestmark = pytest.mark.filterwarnings("error")


def bounds(interval):
    return interval.low, interval.high


# ---- metrics ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(images)
def test_loss_accuracy_and_f1_are_those_of_scikit_learn(drawn):
    truth, scores = drawn
    classes = scores.shape[1]
    call = scores.argmax(axis=1)
    metrics = classification_metrics(truth, scores)
    wanted = (
        oracle.f1_score(truth, call, zero_division=0)
        if classes == 2
        else oracle.f1_score(truth, call, labels=np.unique(truth), average="macro", zero_division=0)
    )
    assert metrics["loss"] == pytest.approx(
        oracle.log_loss(truth, scores, labels=np.arange(classes))
    )
    assert metrics["accuracy"] == pytest.approx(oracle.accuracy_score(truth, call))
    assert metrics["f1"] == pytest.approx(wanted)
    assert (
        confusion(truth, call, classes)
        == oracle.confusion_matrix(truth, call, labels=np.arange(classes)).tolist()
    )


@settings(deadline=None)
@given(images)
def test_auroc_is_that_of_scikit_learn_ties_included(drawn):
    truth, scores = drawn
    columns = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    areas = [
        oracle.roc_auc_score(truth == column, scores[:, column])
        for column in columns
        if len(np.unique(truth == column)) == 2
    ]
    wanted = pytest.approx(np.mean(areas)) if areas else None
    assert classification_metrics(truth, scores)["auroc"] == wanted


@settings(deadline=None)
@given(images, st.integers(0, 99))
def test_average_precision_and_its_resamples_are_those_of_scikit_learn(drawn, seed):
    truth, scores = drawn[0] == 0, drawn[1][:, 0]
    bootstrap = PatientBootstrap(np.arange(len(truth)), 20, seed)
    found = bootstrap.average_precision_interval(truth, scores)
    if not truth.any():
        assert found.reason == ("no fractured images" if len(truth) else "no images")
        return
    assert found.value == pytest.approx(oracle.average_precision_score(truth, scores))
    some = bootstrap.weights[bootstrap.weights[:, truth].any(axis=1)]
    wanted = [oracle.average_precision_score(truth, scores, sample_weight=one) for one in some]
    resampled = average_precision_function(truth, scores)(some.astype(float))
    assert resampled == pytest.approx(np.array(wanted))


@settings(deadline=None)
@given(images, st.integers(0, 99))
def test_weights_of_an_auroc_count_images(drawn, seed):
    truth, scores = drawn[0] == 0, drawn[1][:, 0]
    weights = np.random.default_rng(seed).integers(0, 4, len(truth))
    repeated = auroc(np.repeat(truth, weights), np.repeat(scores, weights))
    assert auroc(truth, scores, weights) == pytest.approx(repeated, nan_ok=True)


def test_perfect_reversed_and_constant_classifiers():
    truth = np.array([0, 1, 0, 1, 1])
    perfect = np.eye(2)[truth]
    assert classification_metrics(truth, perfect) == {
        "loss": pytest.approx(0, abs=1e-9),
        "accuracy": 1,
        "f1": 1,
        "auroc": 1,
    }
    assert classification_metrics(truth, perfect[:, ::-1])["auroc"] == 0
    assert classification_metrics(truth, np.full((5, 2), 0.5))["auroc"] == 0.5


def test_what_is_undefined_is_none():
    assert classification_metrics([1, 1], [[0.4, 0.6], [0.2, 0.8]])["auroc"] is None
    assert set(classification_metrics([], np.empty((0, 2))).values()) == {None}
    broken = classification_metrics([0, 1], np.full((2, 2), np.nan))
    assert broken["loss"] is None
    assert broken["auroc"] is None


# ---- intervals --------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(images, st.integers(2, 12), st.integers(0, 99))
def test_f1_is_that_of_scikit_learn(drawn, patients, seed):
    truth, scores = drawn[0] == 0, drawn[1][:, 0]
    call = scores >= 0.4
    owner = np.random.default_rng(seed).integers(0, patients, len(truth))
    bootstrap = PatientBootstrap(owner, 0, 0)
    f1 = bootstrap.f1_interval(truth, call)
    if truth.any():
        assert f1.value == pytest.approx(oracle.f1_score(truth, call, zero_division=0))
    classes, calls = drawn[0], drawn[1].argmax(axis=1)
    macro = bootstrap.macro_f1_interval(classes, calls)
    assert macro.value == pytest.approx(
        oracle.f1_score(classes, calls, labels=np.unique(classes), average="macro", zero_division=0)
    )


def test_chunks_change_nothing(monkeypatch):
    truth, scores = draw_images(3, 40, 2, 5)
    owner = np.arange(40) // 2
    whole = PatientBootstrap(owner, 50, 1).auroc_interval(truth, scores[:, 1])
    monkeypatch.setattr("pedfrac.statistics.patient_bootstrap.CHUNK", 70)
    assert PatientBootstrap(owner, 50, 1).auroc_interval(truth, scores[:, 1]) == whole


def test_patients_are_drawn_whole_and_by_seed():
    weights = PatientBootstrap([7, 7, 3, 9, 9, 9], 200, 5).weights
    assert weights.shape == (200, 6)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 0] + weights[:, 2] + weights[:, 3] == 3).all()
    assert (weights == PatientBootstrap([7, 7, 3, 9, 9, 9], 200, 5).weights).all()
    assert (weights != PatientBootstrap([7, 7, 3, 9, 9, 9], 200, 6).weights).any()


def test_images_of_one_patient_add_no_certainty():
    truth, scores = draw_images(1, 60, 2, 50)
    patients = np.arange(60)
    alone = PatientBootstrap(patients, 500, 0).auroc_interval(truth, scores[:, 1])
    repeated = PatientBootstrap(np.repeat(patients, 5), 500, 0).auroc_interval(
        np.repeat(truth, 5), np.repeat(scores[:, 1], 5)
    )
    assert repeated == pytest.approx(alone)


def test_any_metric_can_have_an_interval():
    values = np.arange(10.0)
    patients = PatientBootstrap(np.arange(10), 0, 0)
    mean = patients.any_metric(
        lambda weights: weights @ values / weights.sum(axis=1), scale="plain"
    )
    interval = patients.interval(mean)
    assert (interval.value, interval.method) == (4.5, "jackknife")
    assert 1.5 < interval.low < 4.5 < interval.high < 7.5
    ratio = patients.interval(patients.ratio(values, scale="plain"))
    assert bounds(interval) == pytest.approx(bounds(ratio))


@pytest.mark.parametrize("patients", [3, 11, 200])
def test_a_rate_of_one_has_the_exact_bound_of_its_patients(patients):
    owner = np.repeat(np.arange(patients), 2)
    truth = np.ones(2 * patients, bool)
    bootstrap = PatientBootstrap(owner, 50, 0)
    # Clopper and Pearson for n of n: the p with p ** n = 2.5 %.
    low = 0.025 ** (1 / patients)
    every, none = bootstrap.rate_interval(truth), bootstrap.rate_interval(~truth)
    assert (every.value, every.bounds, every.method) == (1, (pytest.approx(low), 1), "exact")
    assert (none.value, none.bounds, none.method) == (0, (0, pytest.approx(1 - low)), "exact")
    assert bootstrap.f1_interval(truth, truth).low == pytest.approx(2 * low / (1 + low))


def test_a_perfect_area_is_not_certain():
    truth = np.array([True] * 4 + [False] * 6)
    area = PatientBootstrap(np.arange(10), 100, 0).auroc_interval(truth, truth * 1.0)
    assert bounds(area) == (pytest.approx(0.025 ** (1 / 4)), 1)
    assert (area.value, area.method) == (1, "exact")


def test_reasons_say_what_is_missing():
    bootstrap = PatientBootstrap([1, 2, 3], 20, 0)
    ones, scores = np.ones(3, bool), [0.1, 0.2, 0.3]
    assert bootstrap.auroc_interval(ones, scores).reason == "only fractured images"
    assert bootstrap.auroc_interval(~ones, scores).reason == "only normal images"
    assert bootstrap.f1_interval(~ones, ones).reason == "no fractured images"
    assert bootstrap.rate_interval(ones, ~ones, "no normal images") == missing("no normal images")


def test_no_images_one_patient_and_no_resamples():
    nothing = PatientBootstrap([], 10, 0)
    for interval in (
        nothing.auroc_interval([], []),
        nothing.rate_interval([]),
        nothing.f1_interval([], []),
        nothing.macro_f1_interval([], []),
    ):
        assert (interval.value, interval.reason) == (None, "no images")
    one = PatientBootstrap([4, 4, 4], 10, 0).rate_interval([True, False, True])
    assert (one.value, one.bounds, one.reason) == (pytest.approx(2 / 3), None, "one patient")
    # The only normal patient cannot be left out: there is no telling how others would score.
    lonely = PatientBootstrap([1, 2, 3], 10, 0).auroc_interval([True, True, False], [0, 2, 1])
    assert (lonely.value, lonely.bounds, lonely.reason) == (0.5, None, "rests on one patient")


@settings(deadline=None)
@given(images, st.integers(1, 9), st.integers(0, 99))
def test_estimates_without_a_patient_equal_those_of_the_other_images(drawn, patients, seed):
    truth, scores = drawn[0] == 0, drawn[1][:, 0]
    owner = np.random.default_rng(seed).integers(0, patients, len(truth))
    bootstrap = PatientBootstrap(owner, 0, 0)
    others = [owner != patient for patient in np.unique(owner)]
    call = scores >= 0.4

    def without(metric):
        return pytest.approx([metric(some) for some in others], nan_ok=True)

    area = bootstrap.area(truth, scores)
    assert area.left_out == without(lambda some: auroc(truth[some], scores[some]))
    assert area.value == pytest.approx(auroc(truth, scores), nan_ok=True)
    rate = bootstrap.rate(call, truth)
    assert rate.left_out == without(
        lambda some: call[some & truth].mean() if (some & truth).any() else np.nan
    )
    precision = bootstrap.precision(truth, scores)
    assert precision.left_out == without(
        lambda some: (
            oracle.average_precision_score(truth[some], scores[some])
            if truth[some].any()
            else np.nan
        )
    )


@settings(deadline=None)
@given(images, st.integers(2, 9), st.integers(0, 99))
def test_an_area_among_some_images_is_that_of_these_images(drawn, patients, seed):
    truth, scores = drawn[0] == 0, drawn[1][:, 0]
    random = np.random.default_rng(seed)
    owner, some = random.integers(0, patients, len(truth)), random.random(len(truth)) < 0.6
    whole = PatientBootstrap(owner, 0, 0)
    part = PatientBootstrap(owner[some], 0, 0)
    found = whole.interval(whole.area(truth, scores, some))
    wanted = part.auroc_interval(truth[some], scores[some])
    if wanted.low is not None:
        assert bounds(found) == pytest.approx(bounds(wanted))
    assert found.value == pytest.approx(wanted.value)


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_the_jackknife_of_an_area_is_the_method_of_delong(shift):
    random = np.random.default_rng(0)
    truth = random.random(400) < 0.4
    scores = random.normal(size=400) + shift * truth
    area = PatientBootstrap(np.arange(400), 0, 0).area(truth, scores)
    wins = (scores[truth][:, None] > scores[~truth]) * 1.0
    sides = (wins.mean(axis=axis) for axis in (0, 1))
    delong = sum(side.var(ddof=1) / len(side) for side in sides)
    assert standard_error(area) ** 2 == pytest.approx(delong, rel=0.02)


def test_bounds_are_near_those_of_scipys_bootstrap_where_each_patient_has_one_image():
    random = np.random.default_rng(1)
    truth = random.random(300) < 0.5
    scores = random.normal(size=300) + 1.5 * truth
    ours = PatientBootstrap(np.arange(300), 0, 0)
    theirs = {
        "ratio": (ours.ratio(np.exp(scores), scale="plain"), np.mean, (np.exp(scores),)),
        "area": (ours.area(truth, scores), auroc, (truth, scores)),
    }
    for name, (estimate, metric, data) in theirs.items():
        wanted = bootstrap(
            data,
            metric,
            paired=True,
            vectorized=name == "ratio",
            n_resamples=2_000,
            method="percentile",
            rng=np.random.default_rng(2),
        ).confidence_interval
        assert bounds(ours.interval(estimate)) == pytest.approx(tuple(wanted), rel=0.05)


# ---- differences ------------------------------------------------------------------------------


def draw_pair(seed, patients=150, better=0.0):
    """Draw images of patients, and two models' scores that err together."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), random.integers(1, 4, patients))
    truth = random.random(patients)[owner] < 0.5
    shared = random.normal(size=patients)[owner] + random.normal(size=len(owner))
    a, b = (
        (1.5 + more) * truth + shared + 0.5 * random.normal(size=len(owner)) for more in (better, 0)
    )
    return owner, truth, a, b


def test_paired_differences_are_narrower_than_either_metric_and_find_the_better():
    owner, truth, a, b = draw_pair(0, better=0.8)
    patients = PatientBootstrap(owner, 0, 0)
    single, paired = patients.auroc_interval(truth, a), patients.auroc_difference(truth, a, b)
    assert paired.value == pytest.approx(auroc(truth, a) - auroc(truth, b))
    assert paired.high - paired.low < single.high - single.low
    assert paired.low > 0
    assert patients.rate_difference(a > 1, b > 1, truth).low > 0
    chances = (1 / (1 + np.exp(-x)) for x in (2 * a - 1.5, b - 5))
    assert patients.brier_difference(truth, *chances).high < 0


def test_what_is_the_same_differs_by_nothing():
    owner, truth, a, _ = draw_pair(1)
    patients = PatientBootstrap(owner, 0, 0)
    assert bounds(patients.auroc_difference(truth, a, 2 * a)) == (0, 0)


def test_models_that_no_patient_tells_apart_may_still_differ():
    truth = np.arange(40) % 2 == 0
    a, b = truth + np.linspace(0, 0.5, 40), truth + np.linspace(0.5, 0, 40)
    difference = PatientBootstrap(np.arange(40), 0, 0).auroc_difference(truth, a, b)
    room = 1 - 0.025 ** (1 / 20)
    assert (difference.value, difference.method) == (0, "exact")
    assert bounds(difference) == pytest.approx((-room, room))


def test_a_difference_of_what_does_not_exist_has_a_reason():
    patients = PatientBootstrap([1, 2, 3], 0, 0)
    found = patients.auroc_difference([True] * 3, [1, 2, 3], [3, 2, 1])
    assert (found.value, found.reason) == (None, "only fractured images")


# ---- coverage ---------------------------------------------------------------------------------


def test_intervals_hold_the_truth_as_often_as_they_say():
    # 60 patients of one to three images; benchmarks/coverage.py measures all metrics.
    inside = np.zeros(3)
    for seed in range(400):
        owner, truth, a, b = draw_pair(seed, patients=60)
        patients = PatientBootstrap(owner, 0, 0)
        found = (
            (patients.auroc_interval(truth, a), norm.cdf(1.5 / np.sqrt(2 * 2.25))),
            (patients.rate_interval(a > 0.75, truth), norm.cdf(0.75 / 1.5)),
            (patients.auroc_difference(truth, a, b), 0),
        )
        inside += [one.low <= true <= one.high for one, true in found]
    # Of 400 intervals that hold the truth 95 times of 100, 366 to 392 do, but once in 400 tries.
    assert (inside >= 366).all()
    assert (inside <= 394).all()


def test_an_interval_shows_what_lies_outside_it_and_nothing_without_bounds():
    found, unknown = Interval(value=1.5, low=1.0, high=2.0), missing("no images")
    assert found.is_above(0.9) and not found.is_above(1.0) and not found.is_below(2.0)
    assert found.is_below(2.1) and found.excludes(0) and not found.excludes(1.2)
    assert not (unknown.is_above(-1) or unknown.is_below(1) or unknown.excludes(0))
    with pytest.raises(ValidationError):
        Interval(value=1.5, low=1.0, high=2.0, chance=0.5)
    with pytest.raises(ValidationError):
        found.value = 2.0


def test_nothing_is_printed(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classification_metrics([0, 0, 0], np.eye(3))
    assert capsys.readouterr() == ("", "")
