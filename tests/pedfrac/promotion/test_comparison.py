"""Versions as a retraining leaves them, before the gate and in the ledger."""

from datetime import UTC, datetime, timedelta

import pytest
from made_versions import TESTED
from registered import Registered
from registries import replace_weights

from pedfrac.errors import PedfracError
from pedfrac.pipeline.retention import Rules, carry_out, plan_removal
from pedfrac.promotion import audit_log, comparison


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def versions(tracking, request):
    """A champion, version 1, and a challenger as good, version 2."""
    made = Registered(tracking, request.node.name)
    made.add()
    decided = comparison.compare(made.config, 1)
    comparison.settle(made.config, decided, True, "Ada", "the first", "one")
    made.add(jitter=0.1, seed=5, epochs=4)
    return made


def blocking(decision):
    return {(one.name, one.of): one.reason for one in decision.blocking}


def test_a_decision_is_kept_with_its_page_and_both_versions_name_it(versions):
    key, decision = comparison.compare(versions.config, 2)
    assert decision.passed and (decision.challenger, decision.champion) == (2, 1)
    assert decision.images == TESTED
    changed = next(one for one in decision.criteria if one.name == "Change of training")
    assert "generalist.epochs 3 → 4" in changed.reason
    kept = versions.store.get(key)
    assert sorted(kept.manifest.files) == ["decision.json", "gate.html"]
    assert {"challenger_bundle", "champion_bundle"} <= kept.manifest.parents.keys()
    assert versions.registry.version(2).tags["gate"] == key
    assert versions.registry.version(1).tags["gate_of_2"] == key
    assert comparison.compare(versions.config, 2)[0] == key


def test_a_file_that_changed_is_named_and_once_mended_the_gate_looks_anew(versions):
    evaluation = versions.store.get(versions.registry.version(2).tags["evaluation"])
    content = evaluation.file("metrics.json").read_text()
    evaluation.file("metrics.json").write_text(content + " ")
    broken = comparison.compare(versions.config, 2)
    told = blocking(broken[1])
    assert "does not verify: metrics.json" in told[("All artifacts verify", "challenger")]
    assert ("AUROC not worse", "all common images") in told
    evaluation.file("metrics.json").write_text(content)
    mended = comparison.compare(versions.config, 2)
    assert mended[1].passed and mended[0] != broken[0]


def test_what_is_missing_or_of_another_bundle_is_named(versions):
    tags = versions.registry.version(1).tags
    versions.registry.set_tags(2, {"explanation": tags["explanation"], "report": "report/none"})
    told = blocking(comparison.compare(versions.config, 2)[1])
    told = told[("All artifacts verify", "challenger")]
    assert "explanation" in told and "was made from another bundle" in told
    assert "report (report/none) is missing" in told


def test_networks_that_learned_by_a_leaking_split_are_found_out(versions):
    leaking = versions.add(epochs=5, leak=(4, 9))
    told = blocking(comparison.compare(versions.config, leaking)[1])
    asked = ("No test patient trained or validated", "challenger")
    assert told == {asked: "learned from patients 4, 9"}


def test_the_challenger_is_the_one_of_the_alias_and_stays_that_of_a_request(versions):
    config = versions.config
    assert comparison.find_challenger(config, None).number == 2
    assert comparison.pin_challenger(config, "run 1", None) == 2
    versions.add(jitter=0.1, seed=7)
    assert comparison.pin_challenger(config, "run 1", None) == 2
    assert comparison.pin_challenger(config, "run 2", None) == 3
    with pytest.raises(PedfracError, match="version 1 of .* is the champion already"):
        comparison.find_challenger(config, 1)


def test_what_the_gate_refused_is_written_down_once_and_cannot_be_approved(versions):
    worse = versions.add(skill=0.6)
    decided = comparison.compare(versions.config, worse)
    first = comparison.note_refusal(versions.config, decided)
    assert comparison.note_refusal(versions.config, decided) == first
    assert "AUROC not worse" in first.reason and first.champion_after == 1
    with pytest.raises(PedfracError, match="refused by the gate"):
        comparison.settle(versions.config, decided, True, "Eve", "I want it", "two")
    comparison.settle(versions.config, decided, False, "Ada", "as the gate says", "three")
    assert versions.registry.holder("champion").number == 1


def test_gc_keeps_champions_and_the_audit_trail_but_not_what_was_refused(versions):
    worse = versions.add(skill=0.6, epochs=9)
    decided = comparison.compare(versions.config, worse)
    comparison.note_refusal(versions.config, decided)
    newest = versions.store.produce("report", lambda f: (f / "p").write_text("."), config={"n": 1})
    late = datetime.now(UTC) + timedelta(days=100)
    carry_out(versions.store, plan_removal(versions.store, Rules(1, timedelta(1)), late))
    there = {one.key for one in versions.store.of_kind()}
    champion, refused = (versions.registry.version(number).tags for number in (1, worse))
    needed = ("bundle", "evaluation", "explanation", "report", "split", "records", "gate")
    assert {champion[name] for name in needed} | {newest.key, decided[0]} <= there
    assert not {refused["bundle"], refused["evaluation"]} & there
    assert len(audit_log.records_of(versions.store, versions.registry.name)) == 2
    assert versions.store.find(decided[0]) is not None


def test_what_was_replaced_after_the_gate_compared_it_is_not_promoted(versions):
    decided = comparison.compare(versions.config, 2)
    replace_weights(versions.store.get(versions.registry.version(2).tags["bundle"]))
    with pytest.raises(PedfracError, match="has changed since the gate compared it"):
        comparison.settle(versions.config, decided, True, "Ada", "good", "two")
    assert comparison.find_champion_number(versions.config) == 1
