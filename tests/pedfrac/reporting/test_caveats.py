"""What a reader must know first is said where it is planted, and only there."""

import copy

import pytest
from made_findings import make_config, make_findings

from pedfrac.reporting.caveats import find_cautions


@pytest.fixture(scope="module")
def made():
    config = make_config(split={"test_per_year": 6}, evaluation={"resamples": 50})
    return make_findings(1500, config, disturbed=True)


@pytest.fixture
def sound(made):
    """Findings in which nothing is wrong."""
    found = copy.deepcopy(made)
    for row in (*found["groups"], *found["subsets"]):
        row["patients"] = max(row["patients"], 30)
        for gain in row["above_baselines"].values():
            gain |= {"low": 0.1, "high": 0.3}
        row["differences"]["bundle less generalist"]["auroc"] |= {"low": 0.01, "high": 0.03}
    for one in found["subgroups"]["subgroups"]:
        for metric in one["metrics"].values():
            metric["differs"] = False
    after = found["calibration"]["groups"][0]["after"]
    after["slope"] |= {"low": 0.9, "high": 1.1}
    after["intercept"] |= {"low": -0.1, "high": 0.1}
    after["ece"]["low"] = 0.0
    for part in found["explanation"].values():
        part["methods"][part["method"]]["localisation"]["pointing"] |= {
            "beats_centre_prior": True,
            "beats_chance": True,
        }
    for part in (found["shortcuts"]["bones hidden"], found["shortcuts"]["marker region only"]):
        part["verdict"] = "not shown"
    return found


def texts(findings):
    return [caution.text for caution in find_cautions(findings, str.upper)]


def test_nothing_is_said_where_nothing_is_wrong(sound):
    assert texts(sound) == []


def shared(found):
    found["split"]["disjoint"]["shared"]["train-test"] = 3


def no_better(found):
    next(iter(found["subsets"][1]["above_baselines"].values()))["low"] = -0.01


def not_known(found):
    next(iter(found["groups"][0]["above_baselines"].values()))["low"] = None


def shortcut(found):
    found["shortcuts"]["bones hidden"]["verdict"] = "suspected"


def missed(found):
    found["operating"]["sensitivity_target"] = 0.95
    found["groups"][0]["models"]["bundle"]["sensitivity"]["high"] = 0.9


def differs(found):
    metric = next(
        metric
        for one in found["subgroups"]["subgroups"]
        for metric in one["metrics"].values()
        if metric["against"]
    )
    metric |= {"differs": True, "value": 0.4}
    metric["against"]["others"] = 0.8


def too_sure(found):
    after = found["calibration"]["groups"][0]["after"]
    after["slope"] |= {"value": 0.5, "low": 0.4, "high": 0.6}


def error(found):
    found["calibration"]["groups"][0]["after"]["ece"]["low"] = 0.01


def few(found):
    found["groups"][1]["patients"] = 29


def middle(found):
    part = found["explanation"]["5-10y"]
    part["methods"][part["method"]]["localisation"]["pointing"]["beats_centre_prior"] = None


def forgets_nothing(found):
    part = found["explanation"]["5-10y"]
    part["methods"][part["method"]]["random_weights"] = {"changes": False}


def generalist(found):
    gain = found["groups"][0]["differences"]["bundle less generalist"]["auroc"]
    gain |= {"low": -0.02, "high": 0.01}


def worse(found):
    gain = found["groups"][0]["differences"]["bundle less generalist"]["auroc"]
    gain |= {"low": -0.02, "high": -0.01}


@pytest.mark.parametrize(
    ("plant", "words", "section"),
    (
        (shared, "3\N{NO-BREAK SPACE}patients are in more than one part", "split"),
        (no_better, "without the image: INITIAL EXAM.", "results"),
        (not_known, "without the image: all test images.", "results"),
        (shortcut, "fractures told from bones hidden, AUROC 0.", "beyond"),
        (missed, "sensitivity of 0.95 that was asked for is missed", "results"),
        (differs, "0.40 against 0.80", "subgroups"),
        (too_sure, "slope 0.50 instead of 1", "calibration"),
        (error, "expected calibration error above what chance makes", "calibration"),
        (few, "0-1.5Y (29)", "results"),
        (middle, "a guess that does not look: 5-10Y.", "pictures"),
        (
            forgets_nothing,
            "hardly change under random weights, so tell little: 5-10Y (",
            "pictures",
        ),
        (generalist, "is not shown to do better than one network", "choice"),
        (worse, "does worse than one network", "choice"),
    ),
)
def test_what_is_planted_is_said_and_nothing_else(sound, plant, words, section):
    plant(sound)
    (caution,) = find_cautions(sound, str.upper)
    assert words in caution.text and caution.section == section


def test_many_differences_are_counted(sound):
    metrics = [
        metric
        for one in sound["subgroups"]["subgroups"]
        for metric in one["metrics"].values()
        if metric["against"]
    ]
    for metric in metrics[:9]:
        metric["differs"] = True
    assert ", and 3 more." in texts(sound)[0]


def test_without_a_test_image_that_is_all_there_is_to_say(sound):
    sound["groups"][0]["images"] = 0
    assert texts(sound) == ["The test set holds no image: nothing here says how well it works."]


def test_older_heat_maps_are_measured_against_chance(sound):
    part = sound["explanation"]["5-10y"]
    del part["methods"]
    part |= {"pointing": {"value": 0.2, "low": 0.1, "high": 0.3}, "chance": 0.2}
    assert "5-10Y" in texts(sound)[0]
    part["chance"] = 0.05
    assert texts(sound) == []
