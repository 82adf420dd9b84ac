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
from pedfrac.evaluation.age_routing import LISTED, routing_figures

pytestmark = pytest.mark.filterwarnings("error")

AGES = AgeGroups((0, 5, 10, 15, 19))
CONFIG = EvaluationConfig()
THRESHOLDS = [0.5, 0.5, 0.5, 0.5]


def draw_films(seed, films=600, adjacent=0.2, far=0.05, elsewhere=3.0, sure=0.9):
    """Draw films whose router errs so often, and specialists so strong outside of their group."""
    random = np.random.default_rng(seed)
    age = random.uniform(0, 19, films)
    group = AGES.assign(age)
    chance = random.random(films)
    near = np.where(group == 3, 2, group + 1)
    away = np.where(group >= 2, 0, 3)
    seen = np.select([chance < far, chance < far + adjacent], [away, near], group)
    probabilities = np.full((films, 4), (1 - sure) / 3)
    probabilities[np.arange(films), seen] = sure
    truth = random.random(films) < 0.5
    strength = np.where(np.arange(4) == group[:, None], 3.0, elsewhere)
    noise = random.normal(size=(films, 1)) + 0.3 * random.normal(size=(films, 4))
    scores = expit(strength * (truth[:, None] - 0.5) + noise)
    return pd.DataFrame(
        {
            "filestem": [f"film {number}" for number in range(films)],
            "patient_id": np.arange(films) // 2,
            "age": age,
            "group": group,
            "fracture_visible": truth,
            **{f"age_{index}": probabilities[:, index] for index in range(4)},
            **{f"specialist_{index}": scores[:, index] for index in range(4)},
        }
    )


def figures_of(films, thresholds=THRESHOLDS, config=CONFIG):
    found = routing_figures(films, AGES, thresholds, config)
    json.dumps(found, allow_nan=False)
    return found


def test_figures_of_routes_are_those_of_their_scores():
    films = draw_films(0, elsewhere=1)
    limits = np.array([0.3, 0.4, 0.5, 0.6])
    found = figures_of(films, limits.tolist())["routes"]
    rows, truth = np.arange(len(films)), films["fracture_visible"]
    scores = films.filter(like="specialist_").to_numpy()
    weights = films.filter(regex="age_").to_numpy()
    seen = weights.argmax(axis=1)
    for name, score, limit in (
        ("recorded age", scores[rows, films["group"]], limits[films["group"]]),
        ("predicted age", scores[rows, seen], limits[seen]),
        ("soft", (scores * weights).sum(axis=1), weights @ limits),
    ):
        area = oracle.roc_auc_score(truth, score)
        assert found[name]["auroc"]["value"] == pytest.approx(area)
        recall = oracle.recall_score(truth, score >= limit)
        assert found[name]["sensitivity"]["value"] == pytest.approx(recall)
        accuracy = oracle.accuracy_score(truth, score >= limit)
        assert found[name]["accuracy"]["value"] == pytest.approx(accuracy)


def test_known_errors_of_a_router_are_found():
    found = figures_of(draw_films(1, films=4000, adjacent=0.2, far=0.05))
    errors = found["errors"]
    for name, share in (("all", 0.25), ("adjacent", 0.2), ("far", 0.05)):
        assert errors[name]["share"]["low"] < share < errors[name]["share"]["high"]
    assert errors["all"]["films"] == errors["adjacent"]["films"] + errors["far"]["films"]
    for group in found["groups"]:
        assert group["wrong"]["low"] < 0.25 < group["wrong"]["high"]


def test_specialists_who_know_their_own_group_only_pay_for_wrong_routes():
    found = figures_of(draw_films(2, films=1500, elsewhere=0.0))
    change = found["routes"]["predicted age"]["change"]
    assert change["auroc"]["high"] < 0
    assert change["sensitivity"]["high"] < 0
    assert change["specificity"]["high"] < 0
    errors = found["errors"]["all"]
    assert errors["harmed"]["low"] > errors["helped"]["high"]
    changed = errors["harmed"]["value"] + errors["helped"]["value"]
    assert errors["changed"]["value"] == pytest.approx(changed)


def test_a_router_that_knows_of_its_doubts_does_better_soft():
    films = draw_films(3, films=1500, adjacent=0.4, far=0, elsewhere=0.5)
    names = [f"age_{index}" for index in range(4)]
    every = np.eye(4)
    seen = films[names].to_numpy().argmax(axis=1)
    films[names] = 0.55 * every[seen] + 0.45 * every[films["group"]]
    routes = figures_of(films)["routes"]
    soft, hard = (routes[name]["change"]["auroc"] for name in ("soft", "predicted age"))
    assert hard["high"] < soft["value"] <= 0.005


def test_a_perfect_router_costs_nothing():
    found = figures_of(draw_films(4, adjacent=0, far=0))
    change = found["routes"]["predicted age"]["change"]
    assert [change["auroc"][end] for end in ("value", "low", "high")] == [0, 0, 0]
    assert found["errors"]["all"]["share"]["value"] == 0
    assert found["errors"]["far"]["changed"]["reason"] == "no film was sent to such a specialist"
    assert (found["doubtful"], found["doubtful_films"]) == ([], 0)


def test_specialists_who_are_alike_everywhere_raise_few_false_alarms():
    alarms = np.zeros(2)
    for seed in range(150):
        routes = routing_figures(draw_films(seed, films=200), AGES, THRESHOLDS, CONFIG)["routes"]
        for place, figure in enumerate(("auroc", "sensitivity")):
            change = routes["predicted age"]["change"][figure]
            alarms[place] += not change["low"] <= 0 <= change["high"]
    # Of 150 draws 5 % are 7.5; more than 16 come about once in 500.
    assert (alarms <= 16).all()


def test_films_whose_age_is_in_doubt_are_named():
    films = draw_films(5, films=2000, adjacent=0.1, far=0.1, sure=0.94)
    films.loc[7, [f"age_{index}" for index in range(4)]] = np.eye(4)[
        (films.loc[7, "group"] + 2) % 4
    ]
    found = figures_of(films)
    wrong = films.filter(regex="age_").to_numpy().argmax(axis=1) != films["group"]
    assert found["doubtful_films"] == wrong.sum() > LISTED == len(found["doubtful"])
    first = found["doubtful"][0]
    assert (first["filestem"], first["probability_recorded"]) == ("film 7", 0)
    assert first["recorded"] == AGES.name(films.loc[7, "group"]) != first["seen"]
    calm = CONFIG.model_copy(update={"age_doubt": 0.01})
    assert figures_of(films, config=calm)["doubtful_films"] == 1


def test_films_without_a_recorded_age_are_counted_apart():
    films = draw_films(6)
    films.loc[:9, "group"] = -1
    found = figures_of(films)
    assert (found["films"], found["unrecorded"]) == (590, 10)
    assert found["routes"] == figures_of(films[10:])["routes"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_films_give_figures_or_reasons(count):
    found = figures_of(draw_films(7)[:count])
    for route in found["routes"].values():
        assert route["auroc"]["low"] is not None or route["auroc"]["reason"]


def test_films_of_one_kind_give_reasons():
    found = figures_of(draw_films(8).assign(fracture_visible=True))
    assert found["routes"]["soft"]["change"]["auroc"]["reason"] == "only fractured films"
    assert found["routes"]["soft"]["change"]["specificity"]["reason"] == "no normal films"


def test_what_is_missing_is_named():
    films = draw_films(9, films=5)
    with pytest.raises(PedfracError, match="columns specialist_2 are missing"):
        figures_of(films.drop(columns="specialist_2"))
    films.loc[3, "specialist_1"] = np.nan
    with pytest.raises(PedfracError, match="film film 3: specialist_0 to specialist_3"):
        figures_of(films)
