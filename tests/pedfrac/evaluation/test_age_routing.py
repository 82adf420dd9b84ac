"""Routers whose errors are known, and specialists who do or do not mind them."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn import metrics as oracle

from pedfrac.age_groups import AgeGroups
from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.errors import PedfracError
from pedfrac.evaluation.age_routing import LISTED, routing_metrics

pytestmark = pytest.mark.filterwarnings("error")

AGES = AgeGroups((0, 5, 10, 15, 19))
CONFIG = EvaluationConfig()
THRESHOLDS = [0.5, 0.5, 0.5, 0.5]


def draw_images(seed, images=600, adjacent=0.2, far=0.05, elsewhere=3.0, sure=0.9):
    """Draw images whose router errs so often, and specialists so strong outside of their group."""
    random = np.random.default_rng(seed)
    age = random.uniform(0, 19, images)
    group = AGES.assign(age)
    chance = random.random(images)
    near = np.where(group == 3, 2, group + 1)
    away = np.where(group >= 2, 0, 3)
    seen = np.select([chance < far, chance < far + adjacent], [away, near], group)
    probabilities = np.full((images, 4), (1 - sure) / 3)
    probabilities[np.arange(images), seen] = sure
    truth = random.random(images) < 0.5
    strength = np.where(np.arange(4) == group[:, None], 3.0, elsewhere)
    noise = random.normal(size=(images, 1)) + 0.3 * random.normal(size=(images, 4))
    scores = expit(strength * (truth[:, None] - 0.5) + noise)
    return pd.DataFrame(
        {
            "filestem": [f"image {number}" for number in range(images)],
            "patient_id": np.arange(images) // 2,
            "age": age,
            "group": group,
            "fracture_visible": truth,
            **{f"age_{index}": probabilities[:, index] for index in range(4)},
            **{f"specialist_{index}": scores[:, index] for index in range(4)},
        }
    )


def metrics_of(images, thresholds=THRESHOLDS, config=CONFIG):
    found = routing_metrics(images, AGES, thresholds, config)
    json.dumps(found.model_dump(), allow_nan=False)
    return found


def test_metrics_of_routes_are_those_of_their_scores():
    images = draw_images(0, elsewhere=1)
    limits = np.array([0.3, 0.4, 0.5, 0.6])
    found = metrics_of(images, limits.tolist()).routes
    rows, truth = np.arange(len(images)), images["fracture_visible"]
    scores = images.filter(like="specialist_").to_numpy()
    weights = images.filter(regex="age_").to_numpy()
    seen = weights.argmax(axis=1)
    for name, score, limit in (
        ("recorded age", scores[rows, images["group"]], limits[images["group"]]),
        ("predicted age", scores[rows, seen], limits[seen]),
        ("soft", (scores * weights).sum(axis=1), weights @ limits),
    ):
        area = oracle.roc_auc_score(truth, score)
        assert found[name].auroc.value == pytest.approx(area)
        recall = oracle.recall_score(truth, score >= limit)
        assert found[name].sensitivity.value == pytest.approx(recall)
        accuracy = oracle.accuracy_score(truth, score >= limit)
        assert found[name].accuracy.value == pytest.approx(accuracy)


def test_known_errors_of_a_router_are_found():
    found = metrics_of(draw_images(1, images=4000, adjacent=0.2, far=0.05))
    errors = found.errors
    for name, share in (("all", 0.25), ("adjacent", 0.2), ("far", 0.05)):
        assert errors[name].share.low < share < errors[name].share.high
    assert errors["all"].images == errors["adjacent"].images + errors["far"].images
    for group in found.groups:
        assert group.wrong.low < 0.25 < group.wrong.high


def test_specialists_who_know_their_own_group_only_pay_for_wrong_routes():
    found = metrics_of(draw_images(2, images=1500, elsewhere=0.0))
    change = found.routes["predicted age"].change
    assert change.auroc.high < 0
    assert change.sensitivity.high < 0
    assert change.specificity.high < 0
    errors = found.errors["all"]
    assert errors.harmed.low > errors.helped.high
    changed = errors.harmed.value + errors.helped.value
    assert errors.changed.value == pytest.approx(changed)


def test_a_router_that_knows_of_its_doubts_does_better_soft():
    images = draw_images(3, images=1500, adjacent=0.4, far=0, elsewhere=0.5)
    names = [f"age_{index}" for index in range(4)]
    every = np.eye(4)
    seen = images[names].to_numpy().argmax(axis=1)
    images[names] = 0.55 * every[seen] + 0.45 * every[images["group"]]
    routes = metrics_of(images).routes
    soft, hard = (routes[name].change.auroc for name in ("soft", "predicted age"))
    assert hard.high < soft.value <= 0.005


def test_a_perfect_router_costs_nothing():
    found = metrics_of(draw_images(4, adjacent=0, far=0))
    change = found.routes["predicted age"].change
    assert (change.auroc.value, change.auroc.bounds) == (0, (0, 0))
    assert found.errors["all"].share.value == 0
    assert found.errors["far"].changed.reason == "no image was sent to such a specialist"
    assert (found.doubtful, found.doubtful_images) == ([], 0)


def test_specialists_who_are_alike_everywhere_raise_few_false_alarms():
    alarms = np.zeros(2)
    for seed in range(150):
        routes = routing_metrics(draw_images(seed, images=200), AGES, THRESHOLDS, CONFIG).routes
        for place, metric in enumerate(("auroc", "sensitivity")):
            change = getattr(routes["predicted age"].change, metric)
            alarms[place] += not change.low <= 0 <= change.high
    # Of 150 draws 5 % are 7.5; more than 16 come about once in 500.
    assert (alarms <= 16).all()


def test_images_whose_age_is_in_doubt_are_named():
    images = draw_images(5, images=2000, adjacent=0.1, far=0.1, sure=0.94)
    images.loc[7, [f"age_{index}" for index in range(4)]] = np.eye(4)[
        (images.loc[7, "group"] + 2) % 4
    ]
    found = metrics_of(images)
    wrong = images.filter(regex="age_").to_numpy().argmax(axis=1) != images["group"]
    assert found.doubtful_images == wrong.sum() > LISTED == len(found.doubtful)
    first = found.doubtful[0]
    assert (first.filestem, first.probability_recorded) == ("image 7", 0)
    assert first.recorded == AGES.name(images.loc[7, "group"]) != first.seen
    calm = CONFIG.model_copy(update={"age_doubt": 0.01})
    assert metrics_of(images, config=calm).doubtful_images == 1


def test_images_without_a_recorded_age_are_counted_apart():
    images = draw_images(6)
    images.loc[:9, "group"] = -1
    found = metrics_of(images)
    assert (found.images, found.unrecorded) == (590, 10)
    assert found.routes == metrics_of(images[10:]).routes


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_give_metrics_or_reasons(count):
    found = metrics_of(draw_images(7)[:count])
    for route in found.routes.values():
        assert route.auroc.low is not None or route.auroc.reason


def test_images_of_one_kind_give_reasons():
    found = metrics_of(draw_images(8).assign(fracture_visible=True))
    assert found.routes["soft"].change.auroc.reason == "only fractured images"
    assert found.routes["soft"].change.specificity.reason == "no normal images"


def test_what_is_missing_is_named():
    images = draw_images(9, images=5)
    with pytest.raises(PedfracError, match="columns specialist_2 are missing"):
        metrics_of(images.drop(columns="specialist_2"))
    images.loc[3, "specialist_1"] = np.nan
    with pytest.raises(PedfracError, match="image image 3: specialist_0 to specialist_3"):
        metrics_of(images)
