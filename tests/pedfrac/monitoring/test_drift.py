"""Changes of made-up images: found, named, and not found where there are none."""

import json
import re

import numpy as np
import pytest
from made_profiles import made_images, made_profile, made_window, rules

from pedfrac.config.monitoring import MonitorConfig
from pedfrac.monitoring.drift import decided, find_drift, metrics_of
from pedfrac.monitoring.page import write_page
from pedfrac.monitoring.prevalence import estimated_prevalence
from pedfrac.monitoring.variables import Pair
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

PROFILE = made_profile()


@pytest.mark.parametrize(
    ("how", "name", "words"),
    [
        ({"contrast": -1.5}, "image_contrast", "images of less contrast"),
        ({"sharpness": -1.5}, "image_sharpness", "blurred images"),
        ({"long_side": 1.5}, "image_long_side", "images of more pixels"),
        ({"age": 12.5}, "age", "older children"),
        ({"age": 5.5}, "age", "younger children"),
        ({"prevalence": 0.85}, "probability", "more fractures"),
        ({"prevalence": 0.15}, "probability", "fewer fractures"),
        ({"feature_00": 1.5}, "embedding", "the network sees otherwise"),
    ],
)
def test_each_change_is_found_and_named_alone(how, name, words):
    found = find_drift(PROFILE, made_window(seed=7, **how), rules())
    assert found["verdict"] == "changed"
    assert found["drifted"] == [name]
    assert words in found["said"]


def test_an_equal_window_is_called_changed_at_most_as_often_as_stated():
    config = rules(smallest_change=0, draws=400)
    pairs = (
        Pair.of(made_profile(2 * n, patients=60), made_window(2 * n + 1, patients=50), config)
        for n in range(20)
    )
    calls = [any(test["drifted"] for test in decided(pair)) for pair in pairs]
    assert sum(calls) <= 4  # of 20 with a rate of .05 more come in three of a thousand


def test_higher_probabilities_of_changed_images_are_not_called_more_fractures():
    window = made_window(prevalence=0.9, brightness=2)
    said = find_drift(PROFILE, window, rules())["said"]
    assert "more fractures" not in said
    assert "higher probabilities of a fracture, which changed images may make" in said


def test_a_change_too_small_to_matter_is_told_and_not_called():
    found = find_drift(PROFILE, made_window(contrast=-1.5), rules(smallest_change=50))
    test = next(one for one in found["tests"] if one["name"] == "image_contrast")
    assert test["p_corrected"] <= 0.05 and not test["drifted"]
    assert found["verdict"] == "no change found"


def test_too_few_images_tell_nothing():
    found = find_drift(PROFILE, made_window(patients=10), rules())
    assert found["verdict"] == "too few images"
    assert not found["tests"] and not found["drifted"]


def test_with_labels_a_fall_is_found_though_scores_look_as_before():
    window = made_window(labelled=True, seed=3)
    assert not find_drift(PROFILE, window, rules())["drifted"]
    # scores that no longer follow the fractures
    order = np.random.default_rng(0).permutation(len(window.images))
    window.images["fractured"] = window.images["fractured"].to_numpy()[order]
    found = find_drift(PROFILE, window, rules())
    assert {"auroc", "sensitivity", "specificity"} <= set(found["drifted"])
    assert "told apart less well" in found["said"]
    metrics = found["performance"]["auroc"]
    assert metrics["window"]["low"] < 0.5 < metrics["window"]["high"] < metrics["reference"]["low"]


def test_a_rise_is_no_fall():
    window = made_window(labelled=True)
    images = window.images
    images["fractured"] = (images["probability"] >= 0.5).astype(float)
    assert "auroc" not in find_drift(PROFILE, window, rules())["drifted"]


def test_unknown_ages_are_compared_as_the_images_show_them():
    window = made_window(age=13.5)
    window.images["age"] = np.nan
    found = find_drift(PROFILE, window, rules())
    assert "age_group_seen" in found["drifted"]
    assert "10-19y" in found["said"]
    assert "age" not in [test["name"] for test in found["tests"]]


def test_what_scores_do_not_hold_is_not_compared_and_noted():
    window = made_window(known=False)
    window.images["feature_00"] = np.nan
    window.images["view"] = ""
    window.images["markers"] = "left"
    found = find_drift(PROFILE, window, rules())
    assert not {"view", "embedding"} & {test["name"] for test in found["tests"]}
    notes = " ".join(found["notes"])
    for words in (
        "patients of these images are not known",
        "hold no features",
        "markers were left",
    ):
        assert words in notes


@pytest.mark.parametrize("prevalence", [0.15, 0.5, 0.85])
def test_the_share_of_fractures_is_estimated_from_scores_alone(prevalence):
    images = made_images(5, patients=600, prevalence=prevalence)
    probability = 1 / (1 + np.exp(-4 * np.log(images["probability"] / (1 - images["probability"]))))
    found = estimated_prevalence(PatientBootstrap(images["patient"], 0, 0), probability, 0.5)
    assert found.low < images["fractured"].mean() < found.high
    assert found.high - found.low < 0.12


def test_few_draws_cannot_tell_and_are_refused():
    with pytest.raises(ValueError, match="draws 99 are too few"):
        MonitorConfig(scores=("a.csv",), bundle="b", draws=99)


def test_the_page_says_what_the_findings_say_and_needs_nothing_else(tmp_path):
    config = rules()
    changed = find_drift(PROFILE, made_window(contrast=-1.5, labelled=True), config)
    for name, found in (
        ("changed", changed),
        ("equal", find_drift(PROFILE, made_window(), config)),
        ("few", find_drift(PROFILE, made_window(patients=10), config)),
    ):
        write_page(tmp_path / name, found)
        page = (tmp_path / name).read_text()
        assert not re.search(r"<script|https?://|None|nan\b|\{[{%]", page)
        json.dumps(found, allow_nan=False)
        write_page(tmp_path / "again", json.loads(json.dumps(found)))
        assert (tmp_path / "again").read_text() == page
    page = (tmp_path / "changed").read_text()
    assert "Images of less contrast" in page and "Something has changed" in page
    assert "AUROC" in page
    assert "No image of this window has a label yet" in (tmp_path / "equal").read_text()
    assert metrics_of(changed)["drift.found"] == 1
    assert metrics_of(changed)["drift.image_contrast.p_corrected"] <= 0.05
