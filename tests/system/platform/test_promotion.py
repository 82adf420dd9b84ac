"""Promotions as people live them: retrainings, the form in a browser, the gate, the way back."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from platforms import config, wait_for
from relabelled import mark_fractures, read_rows, shuffle_labels, write_rows

from pedfrac.config.phantoms import PhantomConfig
from pedfrac.phantoms.dataset import write_phantoms
from pedfrac.storage.store import ArtifactStore

MODEL = "promoted"
NOTHING = {"rotation": 0, "scale": 0, "brightness": 0, "contrast": 0, "gamma": 0, "noise": 0}
LEARNING = {"epochs": 6, "batch_size": 16, "learning_rate": 0.005, "warmup_epochs": 1}
LEARNING |= {"ema_decay": 0, "augment": NOTHING | {"erasing": 0, "flip": 0}}
NETWORK = {"backbone": "resnet10t", "weights": "none", "size": 48}
GATE = {
    # wide: some thirty test images tell no more
    "margins": {"auroc": 0.35, "auroc_of_group": 0.5, "sensitivity": 0.4, "specificity": 0.4},
    "floors": {
        **{"sensitivity": 0.3, "specificity": 0.3},
        **{f"{kind}_no_cast": 0.2 for kind in ("sensitivity", "specificity")},
        **{f"{kind}_initial": 0.1 for kind in ("sensitivity", "specificity")},
    },
    "calibration_error": 0.6,
    "slope": [0, 1000],
    "observed_expected": [0.2, 5],
    "pointing": 1.0,
    "above_chance": False,
}


@pytest.fixture(scope="module")
def folder(stage):
    """A data set whose fractures tiny networks learn in seconds."""
    folder = stage.folder / "promoted"
    write_phantoms(folder, PhantomConfig(images=240, scale=0.15, workers=2))
    mark_fractures(folder)
    return folder


@pytest.fixture(scope="module")
def settings(stage, folder):
    """The parameters of a retraining that ends in a promotion."""
    learning = {"training": LEARNING}
    made = config(
        stage,
        "promoted",
        data={"root": str(folder)},
        tracking={"experiment": MODEL, "model": MODEL},
        cohort={"age_bounds": [0, 10, 19]},
        split={"test_per_year": 3, "validation_fraction": 0.3, "seed": 2},
        pixels={"markers": "off"},
        fracture={
            "model": NETWORK | {"options": {"channels": [16, 24, 32, 48]}},
            "specialist": {"epochs": 1, "learning_rate": 0.001},
            **learning,
        },
        age={
            "model": NETWORK | {"options": {"channels": [8, 8, 8, 8]}},
            "training": LEARNING | {"epochs": 1},
        },
        evaluation={"resamples": 0},
        robustness={"images": 0},
        explanation={"images_per_group": 2, "checked_images": 0},
        promotion={"after_retraining": True, "gate": GATE},
        runtime={"dispatch": "local"},
    )["config"]
    return {"config": made}


@pytest.fixture(scope="module")
def waiting(stage, settings, folder, promoted):
    """Three retrainings: few images, all images, and all images with labels dealt at random.

    Returns the promotions that they began. The first is decided by the form's interface, the
    second is left waiting, the third meets the gate.
    """
    rows = read_rows(folder)
    patients = sorted(set(rows["patient_id"]), key=int)
    write_rows(folder, rows[rows["patient_id"].isin(patients[::2] + patients[1::4])])
    found = [_retrained(stage, settings, 1)]
    refused, state = _first_decided(stage, found[0])
    assert state == "Promoted"
    write_rows(folder, rows)
    found.append(_retrained(stage, settings, 2))
    _suspended(stage, found[1])
    split = next(iter(promoted.of_kind("split"))).file("split.csv")
    table = pd.read_csv(split, dtype=str)
    shuffle_labels(folder, set(table["patient_id"][table["part"] == "test"]))
    found.append(_retrained(stage, settings, 3))
    return found, refused


@pytest.fixture(scope="module")
def promoted(stage):
    """The store of these retrainings, as this process sees it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (one for one in stage.environment if one.startswith("AWS_")):
            patch.setenv(name, stage.environment[name])
        patch.setenv("PEDFRAC_CACHE", str(stage.folder / "cache-of-promotions"))
        yield ArtifactStore("s3://pools/promoted")


def _retrained(stage, settings, version):
    """Retrain, and return the run of the promotion that it began."""
    state = stage.finish(stage.begin("retrain/retrain", settings))
    assert state["type"] == "COMPLETED", state["message"]
    name = f"promote version {version}"
    return wait_for(
        lambda: next((one["id"] for one in stage.runs("promote") if one["name"] == name), None),
        name,
    )


def _suspended(stage, run):
    """Wait until a run waits for a person and its process has ended."""

    def stopped():
        state = stage.state(run)
        assert state["type"] not in ("FAILED", "CRASHED"), state["message"]
        if state["name"] != "Suspended" or run in stage.engines():
            return False
        # the form comes right after the state; an empty one is never taken
        return "schema not found" not in _resume(stage, run, {})["details"]["reason"]

    wait_for(stopped, f"suspension of {run}")


def _resume(stage, run, form):
    return stage.ask("POST", f"/flow_runs/{run}/resume", {"run_input": form})


def _first_decided(stage, run):
    """Return what was said to bad forms, and the state after a good one."""
    _suspended(stage, run)
    good = {"decision": "approve", "reason": "the first model", "name": "Ada Lovelace"}
    bad = [good | {"decision": "perhaps"}, good | {"name": " "}, {"decision": "approve"}]
    refused = [_resume(stage, run, form)["details"]["reason"] for form in bad]
    answer = _resume(stage, run, good)
    assert answer["status"] == "ACCEPT", answer
    return refused, stage.finish(run)["name"]


def _command(stage, *command):
    given = ("--root", "s3://pools/promoted", "--set", f"tracking.model={MODEL}", "--json")
    return json.loads(stage.command("flows.cli", *command, *given))


def test_bad_forms_are_refused_and_the_run_goes_on_waiting(waiting):
    for told, wrong in zip(waiting[1], ("perhaps", "' '", "required property"), strict=True):
        assert wrong in told


def test_the_gate_refuses_the_worse_one_by_name(stage, waiting):
    state = stage.finish(waiting[0][2])
    assert (state["type"], state["name"]) == ("FAILED", "Refused by the gate")
    assert "AUROC not worse (all common images): failed" in state["message"]


def test_a_person_approves_in_the_browser(stage, waiting, browser, tmp_path_factory):
    run = waiting[0][1]
    _suspended(stage, run)  # the next retraining was no reason to end it
    folder = Path(os.environ.get("PEDFRAC_SCREENSHOTS") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    page = browser.new_page(viewport={"width": 1500, "height": 1200})
    page.goto(f"http://127.0.0.1:{stage.prefect}/runs/flow-run/{run}")
    page.get_by_role("button", name="Resume").first.click(timeout=300_000)
    form = page.get_by_role("dialog")
    form.get_by_text("Shall version 2 become the champion?").wait_for(timeout=300_000)
    page.screenshot(path=folder / "approval-empty.png")
    assert form.locator("table tr").count() > 10
    _fill_in(page, form)
    page.screenshot(path=folder / "approval.png")
    form.get_by_role("button", name="Submit").click()
    state = stage.finish(run)
    page.close()
    assert state["name"] == "Promoted", state["message"]
    assert "by Grace Hopper" in state["message"]
    gone = [one["name"] for one in stage.runs("promote") if one["name"].startswith("deadline")]
    assert gone == []  # nobody waits for a deadline any more


def _fill_in(page, form):
    for place, text in enumerate(("more images, as good everywhere", "Grace Hopper")):
        form.locator("textarea").nth(place).fill(text)
    form.locator("fieldset button").first.press("Space")
    page.get_by_text("approve", exact=True).last.click()


@pytest.mark.usefixtures("waiting")
def test_back_to_the_first_and_the_whole_story_can_be_read(stage):
    told = ("--name", "Ada Lovelace", "--reason", "it misses toddlers")
    record = _command(stage, "rollback", "--to", 1, *told)["record"]
    assert (record["champion_before"], record["champion_after"]) == (2, 1)
    trail = _command(stage, "promotions")
    assert trail["champion"] == 1 and trail["lost"] is None
    lines = [(one["event"], one["version"], one["by"]) for one in trail["records"]]
    assert lines == [
        ("promotion", 1, "Ada Lovelace"),
        ("refusal", 3, "the gate"),
        ("promotion", 2, "Grace Hopper"),
        ("rollback", 1, "Ada Lovelace"),
    ]


@pytest.mark.usefixtures("waiting")
def test_what_nobody_decides_is_not_promoted(stage, settings):
    parts = ("artifacts", "results", "tracking", "promotion")
    given = {name: settings["config"][name] for name in parts}
    given["promotion"] = given["promotion"] | {"deadline_hours": 20 / 3600}
    begun = datetime.now(UTC)
    run = stage.begin("promote/promote", {"config": given, "version": 2})
    # the server takes no form any more and fails the run; the deadline's run says what it means
    wait_for(lambda: stage.state(run)["name"] == "Not promoted", f"deadline of {run}")
    state = stage.state(run)
    assert state["type"] == "FAILED"
    assert "nobody decided in time" in state["message"]
    assert (datetime.now(UTC) - begun).total_seconds() >= 20
    assert _resume(stage, run, {})["status"] == "ABORT"
    assert _command(stage, "promotions")["records"][-1]["event"] == "expiry"
