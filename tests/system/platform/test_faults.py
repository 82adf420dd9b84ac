"""Faults for real: processes killed, servers away. A retraining ends as if nothing had been.

Or it fails with a named cause, and the next run does only what is missing.
"""

import time

import psutil
from faults import until
from platforms import Platform, children, config, seconds, training_run, wait_for

from pedfrac.storage.store import ArtifactStore

MODELS = ("age-model", "fracture-model")


def test_faults_on_the_way_change_no_metric(stage, first, s3, store):
    """A training killed, S3 away, a worker lost with its run, Prefect and MLflow away."""
    begun = time.time()
    parent = stage.begin("retrain/retrain", config(stage, "second"))

    victim = wait_for(lambda: training_run(stage, begun, "train-generalist"), "the generalist")
    stage.engines()[victim["id"]].kill()
    wait_for(lambda: stage.state(victim["id"])["type"] == "CRASHED", "the crash to be seen")
    assert "-9" in stage.state(victim["id"])["message"]  # told by its worker
    again = wait_for(
        lambda: training_run(stage, begun, "train-generalist", but=victim["id"]),
        "its second try",
    )
    back = time.time() + 30
    s3.fault = until(30, "busy")
    wait_for(lambda: stage.state(again["id"])["type"] == "COMPLETED", "the second try's end")
    assert s3.failed > 0
    assert seconds(stage.state(again["id"])["timestamp"]) > back  # it had to wait, and did

    victim = wait_for(lambda: training_run(stage, begun, "train-", but=again["id"]), "a child")
    engine = stage.engines()[victim["id"]]
    for process in (engine.parent(), engine):
        process.kill()
    wait_for(lambda: stage.state(victim["id"])["type"] == "CRASHED", "the loss to be told")
    assert "was stopped or lost" in stage.state(victim["id"])["message"]  # told by its node

    stage.stop("server")
    stage.stop("mlflow")
    s3.fault = until(20, "cut")
    time.sleep(60)
    stage.start_server()
    stage.start_mlflow()

    state = stage.finish(parent)
    assert state["type"] == "COMPLETED", state["message"]
    assert _contents(store("second")) == _contents(store("first"))


def test_cancelling_the_parent_leaves_nothing_behind(stage, store):
    begun = time.time()
    parent = stage.begin("retrain/retrain", config(stage, "third", epochs=2000))
    child = wait_for(lambda: training_run(stage, begun, "train-generalist"), "the generalist")
    stage.cancel(parent)
    for run in (parent, child["id"]):
        wait_for(lambda run=run: stage.state(run)["type"] == "CANCELLED", "cancellation")
    wait_for(lambda: not {parent, child["id"]} & set(stage.engines()), "processes to end")
    assert not [a for a in store("third").of_kind() if a.manifest.kind in MODELS]


def test_what_was_cancelled_while_the_server_was_away_publishes_nothing(stage, store):
    begun = time.time()
    settings = config(stage, "fourth", epochs=60)
    run = stage.begin("train-fracture/train-fracture", settings)
    wait_for(lambda: training_run(stage, begun, "train-generalist"), "the training")
    stage.stop("gpu", psutil.signal.SIGKILL)  # nobody is left who could kill the child
    for worker in psutil.process_iter():
        if _is_worker(worker, stage):
            worker.kill()
    state = {"type": "CANCELLED", "name": "Cancelled"}
    stage.ask("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})
    stage.stop("server")
    time.sleep(15)
    stage.start_server()
    wait_for(lambda: run not in stage.engines(), "the training to end by itself")
    stage.start_workers("gpu", 2)
    assert stage.state(run)["type"] == "CANCELLED"
    assert not list(store("fourth").of_kind("fracture-model"))


def test_a_drained_node_hands_its_training_over(stage, store):
    begun = time.time()
    parent = stage.begin(
        "retrain/retrain", config(stage, "fifth", cohort={"age_bounds": [0, 10, 19]})
    )
    child = wait_for(lambda: training_run(stage, begun, "train-generalist"), "the generalist")
    stage.stop("gpu")
    assert stage.state(child["id"])["type"] == "CRASHED"
    assert child["id"] not in stage.engines()
    stage.start_workers("gpu", 2)
    # the parent is lost as well, and begins anew while its children go on
    stage.engines()[parent].kill()
    wait_for(lambda: stage.state(parent)["type"] == "CRASHED", "the parent's crash")
    second = stage.begin(
        "retrain/retrain", config(stage, "fifth", cohort={"age_bounds": [0, 10, 19]})
    )
    state = stage.finish(second)
    assert state["type"] == "COMPLETED", state["message"]
    ended = [run["name"] for run in children(stage, begun) if run["state_type"] == "COMPLETED"]
    assert sorted(ended) == ["train-0-10y", "train-10-19y", "train-age", "train-generalist"]


def _contents(store: ArtifactStore) -> dict[str, str]:
    return {a.key: a.digest for a in store.of_kind() if a.manifest.kind in MODELS}


def _is_worker(process: psutil.Process, stage: Platform) -> bool:
    try:
        mine = process.environ().get("PREFECT_API_URL") == stage.environment["PREFECT_API_URL"]
        return mine and "gpu" in process.cmdline() and "worker" in process.cmdline()
    except psutil.Error:
        return False
