"""What the server does by itself, with its patience cut from minutes to seconds in the file."""

import shutil
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
        make_block(stage, url)
        stage.command("flows.cli", "pools", "--folder", folder, "--notify", "custom-webhook/alerts")
        stage.command("flows.cli", "pools", "--folder", folder)  # leaves it so
        yield messages
        stage.command("flows.cli", "pools", "--notify", "none")


def make_block(stage, url: str) -> None:
    """Make a notification block as the UI does."""
    kind = stage.ask("GET", "/block_types/slug/custom-webhook")["id"]
    wanted = {"block_schemas": {"block_type_id": {"any_": [kind]}}}
    (schema, *_) = stage.ask("POST", "/block_schemas/filter", wanted)
    message = {"subject": "{{subject}}", "body": "{{body}}"}
    block = {
        "name": "alerts",
        "data": {"name": "alerts", "url": url, "json_data": message},
        "block_type_id": kind,
        "block_schema_id": schema["id"],
    }
    stage.ask("POST", "/block_documents/", block)


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
