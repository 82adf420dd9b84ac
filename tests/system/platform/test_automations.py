"""What the server does by itself, with its patience cut from minutes to seconds in the file."""

import shutil
import subprocess
import sys
import time

import pytest
import yaml
from platforms import ROOT, children, config, training_run, wait_for
from webhooks import webhook

PATIENCE = {  # seconds; a run sends a heartbeat every 30
    "pedfrac · lost run": 45,
    "pedfrac · run that never began": 90,
}


@pytest.fixture(scope="module")
def told(stage, tmp_path_factory):
    """What the automations tell a person, as a list that grows."""
    folder = tmp_path_factory.mktemp("automations") / "deployments"
    shutil.copytree(ROOT / "deployments", folder)
    described = yaml.safe_load((folder / "automations.yaml").read_text())
    for automation in described["automations"]:
        within = PATIENCE.get(automation["name"])
        if within:
            automation["trigger"]["within"] = within
    (folder / "automations.yaml").write_text(yaml.safe_dump(described))
    with webhook() as (url, messages):
        stage.environment["PEDFRAC_ALERT_WEBHOOK"] = url
        stage.command("flows.cli", "pools", "--folder", folder)
        del stage.environment["PEDFRAC_ALERT_WEBHOOK"]
        stage.command("flows.cli", "pools", "--folder", folder)  # leaves it so
        yield messages
        stage.command("flows.cli", "pools", "--notify", "none")


def message(told, subject: str, words: str) -> bool:
    return any(subject in one["subject"] and words in one["body"] for one in told)


def test_the_runs_of_a_lost_node_are_noticed_told_and_begun_again(stage, told):
    begun = time.time()
    settings = config(stage, "lost", cohort={"age_bounds": [0, 10, 19]})
    parent = stage.begin("retrain/retrain", settings)
    child = wait_for(lambda: training_run(stage, begun, "train-generalist"), "the generalist")
    stage.lose("gpu")
    assert stage.state(child["id"])["type"] == "RUNNING"
    wait_for(lambda: message(told, "pool without workers", "gpu"), "the alert of the pool")
    wait_for(lambda: stage.state(child["id"])["type"] == "CRASHED", "the loss to be noticed")
    assert "No heartbeat" in stage.state(child["id"])["message"]
    link = f"127.0.0.1:{stage.prefect}/runs/flow-run/{child['id']}"
    wait_for(lambda: message(told, "crashed training", link), "the alert")
    stage.start_workers("gpu", 2)
    state = stage.finish(parent)
    assert state["type"] == "COMPLETED", state["message"]
    tries = [run for run in children(stage, begun) if run["name"] == "train-generalist"]
    assert sorted(run["state_type"] for run in tries) == ["COMPLETED", "CRASHED"]


def test_a_run_that_was_taken_and_never_began_is_given_up(stage, told):
    run = stage.begin("train-age/train-age", config(stage, "lost"))
    wait_for(lambda: stage.state(run)["type"] == "PENDING", "a worker to take the run")
    stage.lose("gpu")
    assert stage.state(run)["type"] == "PENDING"
    stage.start_workers("gpu", 2)
    wait_for(lambda: stage.state(run)["type"] == "CRASHED", "it to be given up")
    assert "did not begin it" in stage.state(run)["message"]
    name = stage.ask("GET", f"/flow_runs/{run}")["name"]
    wait_for(lambda: message(told, "crashed training", name), "the alert")


def test_runs_that_an_outage_made_seem_lost_end_as_if_nothing_had_been(stage, told):
    """The server is away for longer than its patience, and may call living runs lost."""
    begun = time.time()
    settings = config(stage, "away", cohort={"age_bounds": [0, 10, 19]})
    parent = stage.begin("retrain/retrain", settings)
    wait_for(lambda: training_run(stage, begun, "train-generalist"), "the generalist")
    stage.stop("server")
    time.sleep(1.5 * PATIENCE["pedfrac · lost run"])
    stage.start_server()
    wait_for(lambda: stage.state(parent)["type"] == "COMPLETED", "the retraining")
    ended = {run["name"] for run in children(stage, begun) if run["state_type"] == "COMPLETED"}
    assert ended == {"train-0-10y", "train-10-19y", "train-age", "train-generalist"}


def test_a_change_of_images_is_told_with_what_has_changed(stage, told):
    emit = "from prefect.events import emit_event as e; e(event='pedfrac.drift', "
    emit += "resource={'prefect.resource.id': 'pedfrac.bundle.a', 'prefect.resource.name': 'a'}, "
    emit += "payload={'said': 'older children'})"
    subprocess.run([sys.executable, "-c", emit], env=stage.environment, check=True)
    wait_for(lambda: message(told, "change of images", "older children"), "the alert")


def test_a_failed_prediction_is_told(stage, told):
    nothing = {"config": {"images": ["/none"], "bundle": str(stage.folder / "no-bundle")}}
    run = stage.begin("predict/predict", nothing)
    assert stage.finish(run)["type"] == "FAILED"
    name = stage.ask("GET", f"/flow_runs/{run}")["name"]
    wait_for(lambda: message(told, "failed at work", name), "the alert")
