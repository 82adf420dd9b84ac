import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from jsonschema import validate as validate_json
from made_versions import AGES, IMAGES, SETTINGS, TESTED, answers, images, make_version

from pedfrac.config.promotion import GateConfig
from pedfrac.errors import PedfracError
from pedfrac.evaluation.evaluation import Evaluation
from pedfrac.promotion import page
from pedfrac.promotion.decision import Decision
from pedfrac.promotion.gate import decide
from pedfrac.promotion.page import in_markdown, write_page

CONFIG = GateConfig()


@cache
def champion():
    return make_version(1)


@cache
def near():
    """A challenger that differs from the champion by little noise."""
    return make_version(2, answers(jitter=0.1, seed=5))


@cache
def weak():
    return make_version(2, answers(skill=0.6))


def states(decision, name=None):
    return {
        (one.name, one.of): one.state
        for one in decision.criteria
        if name is None or one.name == name
    }


def blocked(decision):
    return {(one.name, one.of) for one in decision.blocking}


def test_a_challenger_as_good_passes_and_every_criterion_has_its_metric():
    decision = decide(near(), champion(), CONFIG)
    assert decision.passed and not decision.blocking
    assert (decision.images, decision.patients) == (TESTED, TESTED // 2)
    compared = [one for one in decision.criteria if one.part == "Not worse"]
    assert {one.of for one in compared} == {"all common images", *AGES.names}
    for one in compared:
        assert one.metric.low <= one.metric.value <= one.metric.high
        own, other = one.challenger.value, one.champion.value
        assert one.metric.value == pytest.approx(own - other)


def test_the_same_model_again_passes_with_no_margin_for_its_area():
    margins = CONFIG.margins.model_copy(update={"auroc": 0.0})
    again = replace(champion(), version=2)
    decision = decide(again, champion(), CONFIG.model_copy(update={"margins": margins}))
    one = next(one for one in decision.criteria if one.name == "AUROC not worse")
    assert (one.state, one.metric.low, one.metric.high) == ("held", 0, 0)


def test_a_worse_challenger_is_refused_by_comparison_and_floors():
    decision = decide(weak(), champion(), CONFIG)
    assert not decision.passed
    assert {
        ("AUROC not worse", "all common images"),
        ("Specificity not worse", "all common images"),
        ("Specificity floor", "all test images"),
        ("Specificity floor", "no cast"),
        ("Specificity floor", "initial exam"),
    } <= blocked(decision)
    assert "AUROC not worse (all common images): failed" in decision.in_words()


def test_a_challenger_of_shuffled_labels_is_refused():
    shuffled = np.random.default_rng(0).permutation(images()["fracture_visible"].to_numpy())
    decision = decide(make_version(2, answers(truth=shuffled)), champion(), CONFIG)
    assert ("AUROC not worse", "all common images") in blocked(decision)
    assert ("Specificity floor", "all test images") in blocked(decision)


def test_test_images_whose_labels_changed_are_counted_and_named():
    relabelled = champion().images.assign(
        fracture_visible=lambda table: table["fracture_visible"] ^ (np.arange(len(table)) < 20)
    )
    decision = decide(replace(near(), images=relabelled), champion(), CONFIG)
    one = next(one for one in decision.criteria if one.name == "Same labels")
    assert one.state == "failed" and one.reason.startswith(f"20 of {TESTED}: 0000_0000")


def test_a_challenger_worse_for_one_age_group_is_refused_for_that_group():
    group = AGES.assign(images()["age"])
    decision = decide(
        make_version(2, answers(worse=(group == 1) & (np.arange(IMAGES) < TESTED), weaker=0.6)),
        champion(),
        CONFIG,
    )
    failed = {of for name, of in blocked(decision) if name == "AUROC not worse"}
    assert AGES.names[1] in failed and not failed & {AGES.names[0], AGES.names[2]}


def test_a_subgroup_that_newly_does_worse_is_named_with_its_paired_change():
    left = (images()["laterality"] == "L").to_numpy() & (np.arange(IMAGES) < TESTED)
    worse = make_version(2, answers(worse=left, weaker=0.4))
    subgroup = ("Specificity of a subgroup", "side: left")
    decision = decide(worse, champion(), CONFIG)
    assert subgroup in blocked(decision)
    one = next(one for one in decision.criteria if (one.name, one.of) == subgroup)
    assert one.metric.high < 0
    allowed = CONFIG.model_copy(update={"new_failing_subgroups": True})
    assert subgroup not in blocked(decide(worse, champion(), allowed))
    # where the champion did as badly, it is nothing new
    assert subgroup not in blocked(decide(replace(worse, version=3), worse, CONFIG))


@pytest.mark.parametrize("side", ["challenger", "champion"])
def test_a_version_that_learned_from_test_patients_is_refused_by_name(side):
    models = {"challenger": near(), "champion": champion()}
    models[side] = replace(models[side], learned=frozenset({3, 5, 900}))
    decision = decide(models["challenger"], models["champion"], CONFIG)
    assert blocked(decision) == {("No test patient trained or validated", side)}
    assert "learned from patients 3, 5" in decision.in_words()


def test_test_patients_of_the_champion_alone_may_not_train_the_challenger():
    other = near().images[near().images["patient_id"] != 3]
    leaking = replace(near(), images=other, learned=frozenset({3}))
    assert ("No test patient trained or validated", "challenger") in blocked(
        decide(leaking, champion(), CONFIG)
    )


def test_a_challenger_tested_on_too_few_of_the_images_is_refused():
    fewer = replace(near(), images=near().images[: TESTED // 2])
    decision = decide(fewer, champion(), CONFIG)
    assert ("Same test images", "champion's test images") in blocked(decision)
    assert f"{TESTED // 2} of {TESTED}" in decision.in_words()


def test_what_is_missing_is_not_known_and_refuses():
    lost = replace(near(), images=None, metrics=None, faults={"evaluation": "is missing"})
    decision = decide(lost, champion(), CONFIG)
    assert not decision.passed
    assert states(decision)[("All artifacts verify", "challenger")] == "failed"
    assert states(decision)[("AUROC not worse", "all common images")] == "not known"
    assert states(decision)[("Sensitivity floor", "all test images")] == "not known"
    unproven = decide(replace(near(), shared=None, learned=None), champion(), CONFIG)
    assert {name for name, _ in blocked(unproven)} == {
        "Parts of the split share no patient",
        "No test patient trained or validated",
    }


def test_heat_maps_that_collapsed_are_noticed():
    lost = make_version(2, answers(jitter=0.1, seed=5), pointing=0.0)
    found = decide(lost, champion(), CONFIG)
    assert blocked(found) == {("Heat maps point at fractures", name) for name in AGES.names}
    assert "less often than chance; points at fractures less often than the champion's" in (
        found.in_words()
    )
    few = CONFIG.model_copy(update={"pointing_images": 1000})
    assert decide(lost, champion(), few).passed


def test_probabilities_that_do_not_mean_what_they_say_are_refused():
    changed = near().metrics.model_dump()
    changed["calibration"]["groups"][0]["after"]["slope"]["value"] = 0.1
    changed["calibration"]["groups"][0]["after"]["ece"]["value"] = 0.3
    metrics = Evaluation.model_validate(changed)
    decision = decide(replace(near(), metrics=metrics), champion(), CONFIG)
    assert {name for name, _ in blocked(decision)} == {"Calibration slope", "Calibration error"}


@pytest.mark.parametrize(
    ("aspect", "value", "allowed"),
    [
        ("data", {"fingerprint": "d2"}, True),
        ("training", {"generalist": {"epochs": 9}}, True),
        ("preparation", {"fracture": {"size": 64, "markers": "fill"}}, False),
        ("classes", {"age head": "ordinal"}, False),
    ],
)
def test_only_what_the_plan_names_may_change(aspect, value, allowed):
    changed = replace(near(), settings=SETTINGS | {aspect: value})
    decision = decide(changed, champion(), CONFIG)
    assert decision.passed == allowed
    one = next(one for one in decision.criteria if one.name == f"Change of {aspect}")
    assert (one.state == "held") == allowed and "→" in one.reason
    may = CONFIG.model_copy(update={"may_change": (aspect,)})
    assert decide(changed, champion(), may).passed


def test_criteria_that_changed_since_the_last_promotion_are_told():
    wider = CONFIG.model_copy(update={"patients": 7})
    told = {}
    for earlier in (CONFIG, wider):
        criteria = decide(near(), None, wider, earlier).criteria
        told[earlier] = next(one for one in criteria if one.of == "gate")
    assert (told[wider].state, told[CONFIG].state) == ("held", "not asked")
    assert told[CONFIG].reason == "changed since: patients 10 → 7"


def test_criteria_that_differ_from_the_operators_are_told_wherever_the_decision_is_shown(tmp_path):
    asked = CONFIG.model_copy(
        update={"floors": CONFIG.floors.model_copy(update={"specificity": 0.0}), "patients": 7}
    )
    decision = decide(weak(), None, asked, standard=CONFIG)
    told = (
        f"floors.specificity {CONFIG.floors.specificity} → 0.0",
        f"patients {CONFIG.patients} → 7",
    )
    assert decision.changed == told
    assert states(decision)[("Criteria", "this run")] == "changed"
    page.write_page(tmp_path / "gate.html", decision, {})
    html = (tmp_path / "gate.html").read_text()
    for shown in (page.in_markdown(decision), page.in_brief(decision), html):
        assert all(one in shown for one in told)
        assert "differ from the operator" in shown or "changed for this run" in shown
    same = decide(near(), champion(), CONFIG, standard=CONFIG)
    assert states(same)[("Criteria", "this run")] == "held" and same.changed == ()


def test_the_form_shows_each_limit_beside_its_value():
    brief = page.in_brief(decide(near(), champion(), CONFIG))
    floor = next(line for line in brief.splitlines() if line.startswith("| Sensitivity, all test"))
    assert f"| lower bound at least {CONFIG.floors.sensitivity:g} |" in floor
    margin = next(line for line in brief.splitlines() if line.startswith("| AUROC, all common"))
    assert f"| above −{CONFIG.margins.auroc:g} |" in margin


def test_groups_with_too_few_patients_are_not_asked():
    asked = CONFIG.model_copy(update={"patients": 1000})
    decision = decide(near(), champion(), asked)
    assert decision.passed
    assert {states(decision)[("AUROC not worse", name)] for name in AGES.names} == {"not asked"}


def test_a_first_model_passes_on_floors_alone():
    decision = decide(near(), None, CONFIG)
    assert decision.passed and decision.champion is None
    assert states(decision)[("Not worse than the champion", "common test images")] == "not asked"
    floored = decide(weak(), None, CONFIG)
    assert {name for name, _ in blocked(floored)} >= {"Specificity floor"}


def test_a_decision_is_json_with_a_schema_and_says_so_on_a_page(tmp_path):
    decision = decide(weak(), champion(), CONFIG)
    told = json.loads(decision.model_dump_json())
    validate_json(told, Decision.model_json_schema())
    assert Decision.model_validate(told) == decision
    write_page(tmp_path / "gate.html", decision, {"challenger bundle": "bundle/b<1>"})
    page = (tmp_path / "gate.html").read_text()
    assert "Refused by the gate" in page and "bundle/b&lt;1&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    table = in_markdown(decision).splitlines()
    assert len([line for line in table if line.startswith("| ")]) == len(decision.criteria) + 1
    assert len({line.count("|") for line in table if line.startswith("|")}) == 1


def test_bounds_that_exclude_right_probabilities_are_refused():
    with pytest.raises(ValueError, match="must enclose 1"):
        GateConfig(slope=(1.5, 2))
    with pytest.raises(PedfracError, match="evaluation is not there"):
        _ = replace(champion(), images=None).called
