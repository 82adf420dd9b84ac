"""How answers of networks become probabilities and calls, by age group."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.errors import PedfracError
from pedfrac.scoring.scorer import SCORERS, fit_scorers, routed, scored
from pedfrac.scoring.thresholds import choose_threshold

CHOICES = ("specialist", "generalist", "average")


def draw_images(seed, count=300):
    random = np.random.default_rng(seed)
    truth = random.random(count) < 0.6
    said = {
        f"network_{name}": np.clip(0.3 * truth + random.uniform(0.05, 0.65, count), 0, 1)
        for name in ("generalist", 0, 1, 2)
    }
    group = random.integers(0, 3, count)
    return pd.DataFrame(
        {
            "filestem": [f"image {number}" for number in range(count)],
            "patient_id": random.integers(0, count // 2, count),
            "study_number": 1,
            "initial_exam": True,
            "fracture_visible": truth,
            "group": group,
            "group_seen": (group + random.integers(0, 2, count)) % 3,
            **said,
        }
    )


def configured(**changes):
    return EvaluationConfig.model_validate({"resamples": 0, **changes})


def test_each_group_is_scored_by_what_was_chosen():
    images = draw_images(1)
    scorers = fit_scorers(images, CHOICES, configured(calibration={"method": "none"}))
    assert set(scorers) == set(SCORERS)
    table = scored(images, scorers)
    own, common = table["network_0"], table["network_generalist"]
    some = table["group"] == 0
    assert (table["bundle"] == own)[some].all()
    assert (table["bundle"] == common)[table["group"] == 1].all()
    mean = (table["network_2"] + common) / 2
    assert np.allclose(table["bundle"][table["group"] == 2], mean[table["group"] == 2])
    assert (table["generalist"] == common).all()
    assert (table["uncalibrated"] == table["bundle"]).all()
    by_group = routed(images, scorers["bundle"])
    assert table["seen"].tolist() == by_group[np.arange(300), images["group_seen"]].tolist()


def test_images_without_a_recorded_age_are_scored_by_what_they_show():
    images = draw_images(2).assign(group=-1)
    table = scored(images, fit_scorers(draw_images(3), CHOICES, configured()))
    assert table[["bundle", "specialist"]].isna().all(axis=None)
    assert table[["seen", "generalist"]].notna().all(axis=None)


def test_specialists_that_were_not_asked_are_not_needed():
    images = draw_images(4)
    scorers = fit_scorers(images, CHOICES, configured())
    some = images[(images["group"] == 1) & (images["group_seen"] == 1)]
    table = scored(some.assign(network_0=np.nan, network_1=np.nan, network_2=np.nan), scorers)
    assert table["bundle"].tolist() == scored(some, scorers)["bundle"].tolist()
    assert table["specialist"].isna().all()


@settings(deadline=None, max_examples=10)
@given(
    st.integers(0, 2**32), st.sampled_from(["logistic", "temperature", "beta", "isotonic", "none"])
)
def test_probabilities_stay_in_order_and_thresholds_are_of_them(seed, method):
    images = draw_images(seed)
    config = configured(calibration={"method": method}, threshold_shrinkage=0)
    scorer = fit_scorers(images, CHOICES, config)["bundle"]
    table = scored(images, dict.fromkeys(SCORERS, scorer))
    assert table["bundle"].between(0, 1).all()
    for group in range(3):
        some = table[table["group"] == group].sort_values("uncalibrated")
        assert (np.diff(some["bundle"]) >= -1e-12).all()
        given = some["fracture_visible"], some["bundle"], config, some["patient_id"]
        own = choose_threshold(*given)
        assert scorer.thresholds[group] == pytest.approx(own)


def test_generalist_knows_no_age():
    scorer = fit_scorers(draw_images(5), CHOICES, configured())["generalist"]
    assert set(scorer.thresholds) == {scorer.pooled_threshold}
    assert scorer.threshold_weights == (0, 0, 0)
    assert set(scorer.calibrators.groups) == {scorer.calibrators.pooled}


def test_without_a_rule_of_abstention_every_image_is_called():
    scorer = fit_scorers(draw_images(6), CHOICES, configured())["bundle"]
    assert scorer.low == scorer.high == scorer.thresholds


def test_the_band_lies_about_each_groups_threshold_and_leaves_out_what_it_should():
    images = draw_images(7, 900)
    config = configured(abstention={"rule": "coverage", "coverage": 0.8})
    scorers = fit_scorers(images, CHOICES, config)
    scorer = scorers["bundle"]
    for low, threshold, high in zip(scorer.low, scorer.thresholds, scorer.high, strict=True):
        assert low < threshold < high
    low, high = scorer.bounds(images["group"])
    probability = scored(images, scorers)["bundle"].to_numpy()
    assert np.mean((probability < low) | (probability >= high)) == pytest.approx(0.8, abs=0.01)


def test_a_band_that_cannot_be_had_calls_no_image_so_and_says_why():
    images = draw_images(8)
    images["fracture_visible"] = np.random.default_rng(0).random(len(images)) < 0.5
    config = configured(abstention={"rule": "predictive values", "ppv": 0.99, "npv": 0.99})
    scorer = fit_scorers(images, CHOICES, config)["bundle"]
    assert scorer.high == (None,) * 3
    assert "positive predictive value of 0.99" in scorer.band_reason
    assert np.isinf(scorer.bounds([0, 1, 2])[1]).all()


def test_thresholds_and_probabilities_are_of_the_intended_examinations():
    """Follow-ups are far easier here, and nearly all fractured."""
    first, later = draw_images(9, 900), draw_images(10, 900).assign(initial_exam=False)
    later["fracture_visible"] = np.random.default_rng(0).random(900) < 0.95
    for name in later.filter(regex="^network_").columns:
        later[name] = later["fracture_visible"] * 0.5 + 0.25
    both = pd.concat([first, later], ignore_index=True)
    scorer = fit_scorers(both, CHOICES, configured())["bundle"]
    alone = fit_scorers(first, CHOICES, configured())["bundle"]
    assert scorer == alone
    assert scorer.intended == "initial examinations"
    assert scorer.prevalence == first["fracture_visible"].mean()
    mixed = fit_scorers(both, CHOICES, configured(intended="all examinations"))["bundle"]
    assert mixed.prevalence == both["fracture_visible"].mean() != scorer.prevalence
    assert mixed.thresholds != scorer.thresholds


def test_too_few_intended_examinations_are_said_and_all_are_used(caplog):
    images = draw_images(11).assign(initial_exam=False)
    scorer = fit_scorers(images, CHOICES, configured())["bundle"]
    assert scorer.intended == "all examinations"
    assert "thresholds are of all examinations" in caplog.text


def test_probabilities_are_right_where_training_saw_a_balanced_world():
    """Networks taught by a balanced sampler say 0.5 where one in four images is fractured."""
    random = np.random.default_rng(12)
    images = draw_images(12, 6000)
    truth = random.random(6000) < 0.25
    odds = 2 * random.normal(truth * 2 - 1, 1, 6000)  # logits of a balanced world
    said = {name: expit(odds) for name in images.filter(regex="^network_").columns}
    scorers = fit_scorers(images.assign(fracture_visible=truth, **said), CHOICES, configured())
    slope, intercept = scorers["bundle"].calibrators.pooled.parameters
    assert slope == pytest.approx(1, abs=0.1)
    assert intercept == pytest.approx(np.log(0.25 / 0.75), abs=0.1)


@given(st.floats(0.02, 0.98), st.integers(0, 100))
@settings(deadline=None, max_examples=10)
def test_another_prevalence_moves_probabilities_as_bayes_rule_says(prevalence, seed):
    images = draw_images(seed)
    scorers = fit_scorers(images, CHOICES, configured())
    here = scorers["bundle"].prevalence
    moved = {name: scorer.at_prevalence(prevalence) for name, scorer in scorers.items()}
    before, after = (scored(images, one) for one in (scorers, moved))
    likelihood_ratio = before["bundle"] / (1 - before["bundle"]) * (1 - here) / here
    posterior = likelihood_ratio * prevalence / (1 - prevalence)
    assert after["bundle"].to_numpy() == pytest.approx((posterior / (1 + posterior)).to_numpy())
    for name in ("bundle", "generalist"):
        calls = [
            table[name].to_numpy() >= np.array(one[name].thresholds)[images["group"]]
            for table, one in ((before, scorers), (after, moved))
        ]
        assert (calls[0] == calls[1]).all()


def test_a_scorer_that_does_not_know_its_prevalence_refuses_another():
    scorer = fit_scorers(draw_images(1), CHOICES, configured())["bundle"]
    with pytest.raises(PedfracError, match="does not state for which prevalence"):
        scorer.model_copy(update={"prevalence": None}).at_prevalence(0.2)
