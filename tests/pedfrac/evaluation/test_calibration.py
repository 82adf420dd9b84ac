"""Calibration of probabilities whose error is known: found, mended, and not seen where none is."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from pedfrac.config.evaluation import CalibrationConfig
from pedfrac.evaluation.calibration import (
    before_and_after,
    calibration_error,
    calibration_metrics,
    equal_mass_bins,
    recalibration,
)
from pedfrac.scoring.calibrators import Calibrator, Calibrators, fit_calibrator, fit_calibrators
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

pytestmark = pytest.mark.filterwarnings("error")

METHODS = ("logistic", "temperature", "beta", "isotonic", "none")


def draw_images(seed, images, sureness=1.0, shift=0.0):
    """Draw truths, and probabilities that are right where ``sureness`` is 1 and ``shift`` 0."""
    random = np.random.default_rng(seed)
    odds = random.normal(0.5, 1.5, images)
    return random.random(images) < expit(odds), expit(sureness * odds + shift)


def test_temperature_finds_how_much_too_sure_scores_are():
    fit = fit_calibrator(*draw_images(0, 20_000, sureness=2.5), "temperature")
    assert np.exp(fit.parameters[0]) == pytest.approx(2.5, rel=0.05)


def test_beta_finds_its_own_parameters():
    truth, right = draw_images(1, 40_000)
    # The inverse of a map with a = b = 0.5 and c = 1.
    fit = fit_calibrator(truth, expit((logit(right) - 1) / 0.5), "beta")
    assert fit.parameters == pytest.approx((0.5, 0.5, 1), abs=0.06)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(0, 60), st.sampled_from(METHODS))
def test_maps_rise_stay_probabilities_and_survive_json(seed, images, method):
    truth, scores = draw_images(seed, images, sureness=3, shift=1)
    fit = fit_calibrator(truth, scores.round(2), method)
    grid = np.linspace(0, 1, 101)
    mapped = fit(grid)
    assert ((mapped >= 0) & (mapped <= 1)).all()
    assert (np.diff(mapped) >= -1e-12).all()
    again = Calibrator.model_validate(json.loads(fit.model_dump_json()))
    assert (again(grid) == mapped).all()


@pytest.mark.parametrize("method", ["logistic", "temperature", "beta", "isotonic"])
def test_calibration_mends_what_is_too_sure(method):
    fit = fit_calibrator(*draw_images(2, 3000, sureness=3), method)
    truth, scores = draw_images(3, 1500, sureness=3)
    assert log_loss(truth, fit(scores)) < log_loss(truth, scores) - 0.05
    patients = PatientBootstrap(np.arange(1500), 300, 0)
    found = before_and_after("all", patients, truth, scores, fit(scores))
    assert found.before.slope.high < 0.5
    assert found.after.slope.low < 1.02 < found.after.slope.high + 0.04
    assert found.before.ece.low > 0.05 > found.after.ece.value
    assert found.change.brier.high < 0
    json.dumps(found.model_dump(), allow_nan=False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["perfect", "constant", "one class", "empty", "one image"])
def test_hard_cases_give_finite_maps(method, kind):
    truth = np.arange(40) % 2 == 0
    scores = {"perfect": truth * 1.0, "constant": np.full(40, 0.7)}.get(kind, np.linspace(0, 1, 40))
    if kind == "one class":
        truth = truth | True
    count = {"empty": 0, "one image": 1}.get(kind, 40)
    fit = fit_calibrator(truth[:count], scores[:count], method)
    mapped = fit([0, 0.2, 0.7, 1])
    assert np.isfinite(mapped).all()
    if kind in ("one class", "empty", "one image"):
        assert mapped == pytest.approx([0, 0.2, 0.7, 1], abs=1e-6)


@pytest.mark.parametrize("method", ["logistic", "temperature", "beta", "isotonic"])
def test_groups_are_drawn_to_the_pooled_map_where_patients_are_few(method):
    sizes = (4000, 20, 30)
    parts = [
        draw_images(seed, size, sure)
        for seed, (size, sure) in enumerate(zip(sizes, (3, 1, 1), strict=True))
    ]
    truth, scores = (np.concatenate(side) for side in zip(*parts, strict=True))
    group = np.repeat([0, 1, 2], sizes)
    truth[group == 2] = True
    config = CalibrationConfig(method=method, shrinkage=100)
    fitted = fit_calibrators(truth, scores, group, np.arange(len(truth)), 4, config)
    assert fitted.weights == pytest.approx((4000 / 4100, 20 / 120, 0, 0))
    grid = np.linspace(0.05, 0.95, 19)
    own = fit_calibrator(truth[group == 1], scores[group == 1], method)(grid)
    pooled, between = fitted.pooled(grid), fitted.groups[1](grid)
    assert (np.minimum(own, pooled) - 1e-9 <= between).all()
    assert (between <= np.maximum(own, pooled) + 1e-9).all()
    assert np.abs(between - pooled).sum() < np.abs(between - own).sum()
    assert fitted.groups[2](grid) == pytest.approx(pooled)
    again = Calibrators.model_validate_json(fitted.model_dump_json())
    groups = np.resize([-1, 0, 1, 2, 3], 19)
    calibrated = again(grid, groups)
    assert calibrated[groups == 1] == pytest.approx(between[groups == 1])
    assert calibrated[groups == -1] == pytest.approx(pooled[groups == -1])
    assert again(grid) == pytest.approx(pooled)


def test_without_shrinkage_a_group_follows_its_own_images():
    truth, scores = draw_images(5, 60, sureness=2)
    config = CalibrationConfig(shrinkage=0)
    fitted = fit_calibrators(truth, scores, np.arange(60) % 2, np.arange(60), 2, config)
    own = fit_calibrator(truth[::2], scores[::2], config.method)
    assert fitted.groups[0].parameters == pytest.approx(own.parameters)


# ---- metrics ----------------------------------------------------------------------------------


def test_metrics_are_those_of_scikit_learn_and_of_a_loop():
    truth, scores = draw_images(6, 500, sureness=1.5, shift=0.3)
    patients = PatientBootstrap(np.arange(500) // 2, 200, 0)
    found = calibration_metrics(patients, truth, scores)
    assert found.brier.value == pytest.approx(brier_score_loss(truth, scores))
    assert found.log_loss.value == pytest.approx(log_loss(truth, scores))
    assert found.observed_expected.value == pytest.approx(truth.sum() / scores.sum())
    ranked = np.argsort(scores).reshape(10, 50)
    gaps = [truth[some].mean() - scores[some].mean() for some in ranked]
    assert found.ece.value == pytest.approx(np.abs(gaps).mean())
    assert [point.images for point in found.curve] == [50] * 10
    assert found.curve[3].predicted == pytest.approx(scores[ranked[3]].mean())
    assert found.curve[3].observed.value == pytest.approx(truth[ranked[3]].mean())
    for name in ("brier", "log_loss", "observed_expected", "slope", "intercept", "ece"):
        one = getattr(found, name)
        assert one.low < one.value < one.high
    json.dumps(found.model_dump(), allow_nan=False)


def test_slope_and_its_values_without_a_patient_are_those_of_a_logistic_regression():
    truth, scores = draw_images(7, 80, sureness=1.7)
    owner = np.arange(80) // 4
    slope = recalibration(PatientBootstrap(owner, 0, 0), truth, scores, slope=True)
    odds = logit(scores)[:, None]

    def fitted(some):
        fit = LogisticRegression(C=np.inf, tol=1e-10).fit(odds[some], truth[some])
        return fit.coef_[0, 0]

    assert slope.value == pytest.approx(fitted(np.ones(80, bool)), rel=1e-4)
    assert slope.left_out == pytest.approx([fitted(owner != one) for one in range(20)], rel=1e-4)


def test_an_intercept_makes_as_many_fractures_expected_as_are_seen():
    truth, scores = draw_images(8, 400, shift=-1)
    patients = PatientBootstrap(np.arange(400), 0, 0)
    intercept = recalibration(patients, truth, scores, slope=False)
    assert expit(logit(scores) + intercept.value).sum() == pytest.approx(truth.sum())
    found = calibration_metrics(patients, truth, scores)
    assert found.intercept.low > 0.5
    assert found.observed_expected.low > 1.1


def test_right_probabilities_raise_few_false_alarms():
    alarms = np.zeros(4)
    for seed in range(150):
        truth, scores = draw_images(seed, 300)
        found = calibration_metrics(PatientBootstrap(np.arange(300) // 2, 200, seed), truth, scores)
        alarms += [
            not found.slope.low <= 1 <= found.slope.high,
            not found.intercept.low <= 0 <= found.intercept.high,
            not found.observed_expected.low <= 1 <= found.observed_expected.high,
            found.ece.low > 0,
        ]
        assert found.ece.chance == pytest.approx(0.06, abs=0.03)
    # Of 150 draws 5 % are 7.5; more than 16 come about once in 500.
    assert (alarms <= 16).all()


def test_bounds_agree_with_repeats_of_the_patients():
    truth, scores = draw_images(9, 400, sureness=1.3)
    odds = logit(scores)
    patients = PatientBootstrap(np.arange(400) // 2, 400, 0)
    found = calibration_metrics(patients, truth, scores)

    def loss_of(line, y, x):
        return np.logaddexp(0, np.where(y, -1, 1) * (line[0] + line[1] * x)).mean()

    drawn = []
    for weights in patients.weights:
        some = np.repeat(np.arange(400), weights)
        y, p, x = truth[some], scores[some], odds[some]
        drawn.append(
            {
                "brier": brier_score_loss(y, p),
                "log_loss": log_loss(y, p),
                "observed_expected": y.sum() / p.sum(),
                "slope": minimize(loss_of, (0, 1), (y, x)).x[1],
                "intercept": minimize(lambda a, y=y, x=x: loss_of((a[0], 1), y, x), 0).x[0],
            }
        )
    for name in drawn[0]:
        one = getattr(found, name)
        wanted = np.quantile([values[name] for values in drawn], [0.025, 0.975])
        assert one.method == "jackknife"
        assert one.bounds == pytest.approx(tuple(wanted), abs=(one.high - one.low) / 5)


def test_equal_scores_share_a_bin():
    assert len(set(equal_mass_bins(np.full(100, 0.4), 10))) == 1
    assert equal_mass_bins(np.arange(40) / 40, 10).tolist() == [i // 10 for i in range(40)]
    assert len(equal_mass_bins(np.empty(0), 10)) == 0
    truth = np.arange(100) % 5 == 0
    patients = PatientBootstrap(np.arange(100), 100, 0)
    constant = np.full(100, 0.4)
    error = calibration_error(patients, truth, constant, equal_mass_bins(constant, 10))
    assert error.value == pytest.approx(0.2)
    assert error.low > 0.1


@pytest.mark.parametrize(
    ("truth", "scores", "owner", "reasons"),
    [
        ([], [], [], {"brier": "no images", "slope": "no images", "ece": "no images"}),
        ([1] * 20, np.linspace(0.1, 0.9, 20), range(20), {"slope": "only fractured images"}),
        ([0] * 20, np.linspace(0.1, 0.9, 20), range(20), {"intercept": "only normal images"}),
        ([0, 1] * 10, [0.3] * 20, range(20), {"slope": "all images have the same probability"}),
        ([0, 1] * 10, [0.3, 0.6] * 10, [4] * 20, {"brier": "one patient", "ece": "one patient"}),
        ([0, 1] * 10, [0.3, 0.6] * 10, range(20), {"slope": "the images are told apart"}),
    ],
)
def test_reasons_stand_where_metrics_cannot(truth, scores, owner, reasons):
    patients = PatientBootstrap(list(owner), 50, 0)
    found = calibration_metrics(patients, np.array(truth, bool), np.array(scores, float))
    json.dumps(found.model_dump(), allow_nan=False)
    for name, reason in reasons.items():
        assert getattr(found, name).low is None
        assert getattr(found, name).reason.startswith(reason)
