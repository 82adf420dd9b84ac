"""A specialist that is better, worse, as good, or not to be judged, and what is chosen for it."""

import json
from collections import Counter

import numpy as np
import pytest
from scipy.special import expit

from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.scoring.model_selection import chosen_scores, select_model

pytestmark = pytest.mark.filterwarnings("error")

CONFIG = EvaluationConfig()


def draw_images(seed, patients, specialist=2.5, generalist=2.5):
    """Draw images of patients, and scores whose strengths are given and whose errors are akin."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), random.integers(1, 4, patients))
    truth = (random.random(patients) < 0.6)[owner]
    shared = 0.8 * random.normal(size=len(owner))
    scores = (
        expit(strength * (truth - 0.5) + shared + 0.6 * random.normal(size=len(owner)))
        for strength in (specialist, generalist)
    )
    return owner, truth, *scores


def choices(draws, patients, **strengths):
    return Counter(
        select_model(*draw_images(seed, patients, **strengths), CONFIG).choice
        for seed in range(draws)
    )


def test_a_better_specialist_is_taken():
    found = select_model(*draw_images(0, 400, specialist=3.5), CONFIG)
    assert found.choice == "specialist"
    assert "is shown to be better" in found.why
    assert f"{found.gain.value:+.3f}" in found.why
    assert found.gain.low > 0
    json.dumps(found.model_dump(), allow_nan=False)


def test_a_worse_specialist_is_found_and_seldom_taken():
    found = select_model(*draw_images(1, 400, specialist=1.2), CONFIG)
    assert found.choice == "generalist"
    assert "shown to be worse" in found.why
    assert found.gain.high < 0
    # Worse by some 0.02: twice the margin.
    assert choices(150, 150, specialist=2.1)["specialist"] <= 9


def test_an_average_that_is_better_than_either_is_taken():
    random = np.random.default_rng(0)
    owner = np.arange(600)
    truth = random.random(600) < 0.6
    # errors of their own: the mean of two such witnesses knows more than each
    scores = [expit(1.5 * (truth - 0.5) + random.normal(size=600)) for _ in range(2)]
    found = select_model(owner, truth, *scores, CONFIG)
    assert found.choice == "average"
    assert "better than either" in found.why


def test_one_that_is_as_good_is_never_far_away():
    found = choices(100, 150)
    assert found["specialist"] + found["average"] >= 75
    assert found["average"] > 0


def test_the_same_network_twice_is_the_specialist():
    owner, truth, specialist, _ = draw_images(2, 60)
    found = select_model(owner, truth, specialist, specialist, CONFIG)
    assert found.choice == "specialist"
    assert (found.gain.low, found.gain.high) == (0, 0)


def test_few_patients_show_nothing():
    owner, truth, specialist, generalist = draw_images(3, 14, specialist=9)
    found = select_model(owner, truth, specialist, generalist, CONFIG)
    assert found.choice == "generalist"
    assert "too few patients" in found.why
    json.dumps(found.model_dump(), allow_nan=False)


@pytest.mark.parametrize(
    ("images", "truth", "word"),
    [(0, [], "no images"), (3, [True] * 3, "only fractured"), (3, [False] * 3, "only normal")],
)
def test_images_of_one_kind_show_nothing(images, truth, word):
    scores = np.linspace(0.1, 0.9, images)
    found = select_model(np.arange(images), truth, scores, scores, CONFIG)
    assert found.choice == "generalist"
    assert word in found.why
    json.dumps(found.model_dump(), allow_nan=False)


def test_a_margin_that_is_wider_lets_more_pass():
    images = draw_images(4, 60)
    strict, lax = (
        select_model(*images, CONFIG.model_copy(update={"selection_margin": margin}))
        for margin in (0.0, 0.5)
    )
    assert strict.choice != "specialist"
    assert lax.choice == "specialist"
    assert "not worse by 0.5" in lax.why


@pytest.mark.parametrize("constant", [0.2, 1.0])
def test_a_constant_specialist_is_worse(constant):
    owner, truth, _, generalist = draw_images(5, 100)
    found = select_model(owner, truth, np.full(len(truth), constant), generalist, CONFIG)
    assert found.choice == "generalist"
    assert found.auroc["specialist"].value == 0.5


def test_what_was_chosen_gives_the_scores():
    for choice, wanted in (("specialist", 0.2), ("generalist", 0.6), ("average", 0.4)):
        assert chosen_scores(choice, [0.2], [0.6]) == pytest.approx([wanted])


def test_an_average_loses_no_more_than_its_parts_do_on_average():
    _, truth, specialist, generalist = draw_images(6, 300)
    brier = [
        np.mean((chosen_scores(choice, specialist, generalist) - truth) ** 2)
        for choice in ("specialist", "generalist", "average")
    ]
    assert brier[2] <= (brier[0] + brier[1]) / 2
