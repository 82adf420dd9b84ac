"""The flow ``promote`` without a person, and the commands by which a person decides.

Not here: the form in Prefect's UI, which needs a server (tests/system/platform/test_promotion.py).
"""

import json

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Completed, Failed, Running, Suspended
from prefect.testing.utilities import prefect_test_harness
from registered import Registered
from typer.testing import CliRunner

from flows.cli.app import app
from flows.promotion import Approval, promote
from pedfrac.config.promotion import GateConfig, PromotionConfig
from pedfrac.promotion import audit_log, comparison


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def versions(tracking, request):
    return Registered(tracking, request.node.name)


def run(versions, *words, fails=False):
    given = ["--root", versions.config.artifacts, "--json"]
    given += ["--set", f"tracking.uri={versions.config.tracking.uri}"]
    given += ["--set", f"tracking.model={versions.registry.name}"]
    done = CliRunner().invoke(app, [*map(str, words), *given])
    assert (done.exit_code != 0) == fails, (done.output, done.exception)
    return str(done.exception) if fails else json.loads(done.output)


WHO = ("--name", "Ada", "--reason", "as good everywhere")


def test_a_person_decides_by_commands(versions):
    assert versions.add() == 1
    shown = run(versions, "promote")
    assert shown["decision"]["passed"] and "record" not in shown
    assert run(versions, "promotions")["records"] == []
    assert "--name and --reason must be given" in run(versions, "promote", "--approve", fails=True)
    record = run(versions, "promote", "--approve", *WHO)["record"]
    assert (record["champion_after"], record["by"], record["automatic"]) == (1, "Ada", False)
    versions.add(jitter=0.1, seed=5, epochs=4)
    assert run(versions, "promote", "--reject", *WHO)["record"]["event"] == "rejection"
    assert (
        run(versions, "promote", "--version", 2, "--approve", *WHO)["record"]["champion_after"] == 2
    )
    assert "by must be given" in run(versions, "rollback", "--to", 1, fails=True)
    assert run(versions, "rollback", "--to", 1, *WHO)["record"]["champion_before"] == 2
    trail = run(versions, "promotions")
    assert trail["champion"] == 1
    events = [one["event"] for one in trail["records"]]
    assert events == ["promotion", "rejection", "promotion", "rollback"]
    versions.client.delete_registered_model_alias(versions.registry.name, "champion")
    assert "no version holds the alias champion" in run(versions, "promotions", fails=True)


def test_who_weakens_the_gate_is_seen_in_the_audit_log(versions):
    versions.add(skill=0.6)
    weak = ("--set", "promotion.gate.floors.specificity=0")
    weak += ("--set", "promotion.gate.floors.specificity_no_cast=0")
    weak += ("--set", "promotion.gate.floors.specificity_initial=0")
    shown = run(versions, "promote", "--approve", *WHO, *weak)
    assert shown["decision"]["passed"] and not shown["record"]["automatic"]
    (record,) = run(versions, "promotions")["records"]
    told = ("floors.specificity 0.7 → 0.0", "floors.specificity_initial 0.65 → 0.0")
    assert set(told) < set(record["criteria_changed"])


def test_what_the_gate_refuses_fails_the_command_even_if_approved(versions):
    versions.add(skill=0.6)
    said = run(versions, "promote", "--approve", *WHO, fails=True)
    assert "Specificity floor (all test images): failed" in said
    assert [one["event"] for one in run(versions, "promotions")["records"]] == ["refusal"]


@pytest.fixture(scope="module")
def server():
    """A Prefect server of this module, ended with it."""
    with prefect_test_harness(server_startup_timeout=300):
        yield


@pytest.mark.usefixtures("server")
def test_the_flow_ends_in_a_state_that_says_what_became_of_the_version(
    versions, monkeypatch, tmp_path
):
    versions.add()
    config = versions.config
    waiting = promote(config, return_state=True)
    assert waiting.is_failed() and "a person decides on version 1" in waiting.message
    automatic = config.model_copy(update={"promotion": PromotionConfig(approval="automatic")})
    alone = promote(automatic, return_state=True)  # a run cannot do without a person by itself
    assert alone.is_failed() and "a person decides on version 1" in alone.message
    monkeypatch.setenv("PEDFRAC_CONFIG", str(tmp_path / "operator.yaml"))
    (tmp_path / "operator.yaml").write_text("retraining: {promotion: {approval: automatic}}")
    softer = PromotionConfig(approval="automatic", gate=GateConfig(patients=7))
    state = promote(config.model_copy(update={"promotion": softer}), return_state=True)
    assert state.is_failed() and "a person decides on version 1" in state.message
    state = promote(automatic, return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Promoted"), state.message
    assert versions.registry.holder("champion").number == 1
    worse = versions.add(skill=0.6, epochs=4)
    state = promote(automatic, worse, return_state=True)
    assert (state.type.value, state.name) == ("FAILED", "Refused by the gate")
    assert "AUROC not worse (all common images): failed" in state.message
    assert run(versions, "promotions")["records"][0]["automatic"] is True


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("state", "ended"),
    [
        (Failed(message="The flow was paused and never resumed."), "Not promoted"),
        (Suspended(timeout_seconds=3600), "Suspended"),
        (Running(), "Running"),
        (Completed(name="Rejected"), "Rejected"),
    ],
    ids=lambda one: getattr(one, "name", one),
)
def test_a_deadline_ends_only_what_nobody_decided(versions, state, ended):
    versions.add()
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(promote, parameters={"config": {}})
        comparison.pin_challenger(versions.config, f"run {run.id}", None)
        client.set_flow_run_state(run.id, state, force=True)
        assert promote(versions.config, undecided=str(run.id), return_state=True).is_completed()
        assert client.read_flow_run(run.id).state.name == ended
    records = audit_log.records_of(versions.store, versions.registry.name)
    assert [one.event for one in records] == ["expiry"] * (ended == "Not promoted")


@pytest.mark.parametrize("wrong", [{"decision": "maybe"}, {"name": " "}, {"reason": ""}])
def test_a_form_takes_no_blank_and_nothing_but_approve_and_reject(wrong):
    good = {"decision": "reject", "name": "Ada", "reason": "no"}
    assert Approval(**good).decision == "reject"
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Approval(**good | wrong)
