"""A retraining over pools of workers, as deployed: real Prefect, MLflow and S3, faults for real."""

import re
import time
from collections.abc import Iterator

import mlflow
import psutil
import pytest
from faults import proxy, until
from platforms import Platform, platform, wait_for
from servers import environment

from pedfrac.config import PhantomConfig
from pedfrac.phantoms import write_phantoms
from pedfrac.storage import ArtifactStore

pytestmark = [pytest.mark.platform, pytest.mark.timeout(1500)]

GROUPS = ["0-5y", "5-8y", "8-11y", "11-14y", "14-19y"]
MODELS = ("age-model", "fracture-model")


@pytest.fixture(scope="module")
def s3(s3_server):
    """The S3 server behind a proxy that can fail."""
    s3_server.client.create_bucket(Bucket="pools")
    with proxy(s3_server.endpoint) as between:
        yield between


@pytest.fixture(scope="module")
def stage(tmp_path_factory, s3) -> Iterator[Platform]:
    """The whole platform with one worker for parents and two for trainings."""
    folder = tmp_path_factory.mktemp("platform")
    write_phantoms(folder / "data", PhantomConfig(images=300, scale=0.2, workers=2))
    with platform(folder, environment(s3.endpoint), "s3://pools/first") as running:
        running.start_workers("cpu", 1)
        running.start_workers("gpu", 2)
        yield running


@pytest.fixture
def store(s3, stage, monkeypatch):
    """Return the store below a name, as this process sees it, with a cache of its own."""
    for name, value in environment(s3.endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PEDFRAC_CACHE", str(stage.folder / "cache-of-the-test"))
    return lambda name: ArtifactStore(f"s3://pools/{name}")


def config(stage: Platform, artifacts: str, epochs: int = 30, **changes) -> dict:
    """Return the parameters of a retraining with tiny networks."""
    training = {"epochs": epochs, "patience": 100, "batch_size": 16}
    return {
        "config": {
            "data": {"root": str(stage.folder / "data")},
            "artifacts": f"s3://pools/{artifacts}",
            "results": "",
            "cohort": {"age_bounds": [0, 5, 8, 11, 14, 19]},
            "split": {"test_per_year": 1, "validation_fraction": 0.3, "seed": 2},
            "fracture": {
                "model": {
                    "backbone": "convnextv2_atto",
                    "options": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
                    "weights": "none",
                    "size": 48,
                },
                "training": training,
            },
            "age": {
                "model": {
                    "options": {
                        "embed_dim": 8,
                        "depths": [1, 1],
                        "num_heads": [1, 2],
                        "window_size": 3,
                    },
                    "weights": "none",
                    "size": 48,
                },
                "training": training,
            },
            "evaluation": {"resamples": 50},
            "explanation": {"films_per_group": 3},
            "runtime": {"dispatch": "deployments"},
            **changes,
        }
    }


def children(stage: Platform, begun: float) -> list[dict]:
    """Return the runs of trainings that were created since a time."""
    runs = stage.runs("train-fracture") + stage.runs("train-age")
    return [run for run in runs if _seconds(run["created"]) >= begun]


def _seconds(stamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp()


@pytest.fixture(scope="module")
def first(stage):
    """An undisturbed retraining, begun as a click in the UI does."""
    begun = time.time()
    run = stage.begin("retrain/retrain", config(stage, "first"))
    return run, stage.finish(run), children(stage, begun)


def test_groups_train_in_processes_of_the_pool_two_at_a_time(stage, first):
    _, state, runs = first
    assert state["type"] == "COMPLETED", state["message"]
    assert {run["name"] for run in runs} == {
        "train-age",
        "train-generalist",
        *(f"train-{group}" for group in GROUPS),
    }
    assert {run["work_pool_name"] for run in runs} == {"gpu"}
    assert len({run["infrastructure_pid"] for run in runs}) == len(runs)
    spans = [(_seconds(run["start_time"]), _seconds(run["end_time"])) for run in runs]
    at_once = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert max(at_once) == 2


def test_every_artifact_verifies_and_mlflow_has_all_models(stage, first, store):
    kept = list(store("first").of_kind())
    assert {"records", "split", "pack", "bundle", "report", *MODELS} <= {
        a.manifest.kind for a in kept
    }
    for artifact in kept:
        store("first").get(artifact.key)
    client = mlflow.MlflowClient(stage.environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("pedfrac").experiment_id
    runs = client.search_runs([experiment])
    assert {run.info.run_name for run in runs} >= {"retrain", "age", "generalist", *GROUPS}
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_scheduled_run_with_nothing_new_ends_at_once(stage, first):
    run = stage.begin("retrain/retrain-weekly", config(stage, "first"))
    state = stage.finish(run)
    assert (state["type"], state["name"]) == ("COMPLETED", "Nothing to do")
    parent = next(r["name"] for r in stage.runs("retrain") if r["id"] == first[0])
    assert f"those of run {parent}" in state["message"]


def test_a_wrong_value_is_refused_before_any_run(stage):
    wrong = config(stage, "wrong")
    wrong["config"]["fracture"]["training"]["imbalance"] = "both"
    before = len(stage.runs())
    with pytest.raises(OSError, match="409|422"):
        stage.begin("retrain/retrain", wrong)
    assert len(stage.runs()) == before


def test_faults_on_the_way_change_no_figure(stage, first, s3, store):
    """A training killed, S3 away, a worker lost with its run, Prefect and MLflow away."""
    begun = time.time()
    parent = stage.begin("retrain/retrain", config(stage, "second"))

    victim = wait_for(
        lambda: _training_run(stage, begun, "train-generalist"), 300, "the generalist"
    )
    stage.engines()[victim["id"]].kill()
    wait_for(lambda: stage.state(victim["id"])["type"] == "CRASHED", 60, "the crash to be seen")
    again = wait_for(
        lambda: _training_run(stage, begun, "train-generalist", but=victim["id"]),
        120,
        "its second try",
    )
    s3.fault = until(20, "busy")
    wait_for(lambda: stage.state(again["id"])["type"] == "COMPLETED", 300, "the second try's end")
    assert s3.failed > 0

    victim = wait_for(
        lambda: _training_run(stage, begun, "train-", but=again["id"]), 300, "a child"
    )
    engine = stage.engines()[victim["id"]]
    for process in (engine.parent(), engine):
        process.kill()
    lost = time.monotonic()
    wait_for(lambda: stage.state(victim["id"])["type"] == "CRASHED", 60, "the loss to be told")
    assert time.monotonic() - lost < 60

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
    child = wait_for(lambda: _training_run(stage, begun, "train-generalist"), 300, "the generalist")
    stage.cancel(parent)
    for run in (parent, child["id"]):
        wait_for(lambda run=run: stage.state(run)["type"] == "CANCELLED", 120, "cancellation")
    wait_for(lambda: not {parent, child["id"]} & set(stage.engines()), 60, "processes to end")
    assert not [a for a in store("third").of_kind() if a.manifest.kind in MODELS]


def test_what_was_cancelled_while_the_server_was_away_publishes_nothing(stage, store):
    begun = time.time()
    settings = config(stage, "fourth", epochs=60)
    run = stage.begin("train-fracture/train-fracture", settings)
    wait_for(lambda: _training_run(stage, begun, "train-generalist"), 300, "the training")
    stage.stop("gpu", psutil.signal.SIGKILL)  # nobody is left who could kill the child
    for worker in psutil.process_iter():
        if _is_worker(worker, stage):
            worker.kill()
    state = {"type": "CANCELLED", "name": "Cancelled"}
    stage.ask("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})
    stage.stop("server")
    time.sleep(15)
    stage.start_server()
    wait_for(lambda: run not in stage.engines(), 300, "the training to end by itself")
    stage.start_workers("gpu", 2)
    assert stage.state(run)["type"] == "CANCELLED"
    assert not list(store("fourth").of_kind("fracture-model"))


def test_a_drained_node_hands_its_training_over(stage, store):
    begun = time.time()
    parent = stage.begin(
        "retrain/retrain", config(stage, "fifth", cohort={"age_bounds": [0, 10, 19]})
    )
    child = wait_for(lambda: _training_run(stage, begun, "train-generalist"), 300, "the generalist")
    stage.stop("gpu")
    assert stage.state(child["id"])["type"] == "CRASHED"
    assert child["id"] not in stage.engines()
    stage.start_workers("gpu", 2)
    # the parent is lost as well, and begins anew while its children go on
    stage.engines()[parent].kill()
    wait_for(lambda: stage.state(parent)["type"] == "CRASHED", 60, "the parent's crash")
    second = stage.begin(
        "retrain/retrain", config(stage, "fifth", cohort={"age_bounds": [0, 10, 19]})
    )
    state = stage.finish(second)
    assert state["type"] == "COMPLETED", state["message"]
    ended = [run["name"] for run in children(stage, begun) if run["state_type"] == "COMPLETED"]
    assert sorted(ended) == ["train-0-10y", "train-10-19y", "train-age", "train-generalist"]


def _training_run(stage: Platform, begun: float, name: str, but: str = "") -> dict | None:
    """Return a running training that has shown its first epoch, if there is one."""
    for run in children(stage, begun):
        if run["name"].startswith(name) and run["id"] != but and run["state_type"] == "RUNNING":
            logs = {"logs": {"flow_run_id": {"any_": [run["id"]]}}}
            lines = stage.ask("POST", "/logs/filter", logs)
            if any(re.search(r"epoch \d+/", line["message"]) for line in lines):
                return run
    return None


def _contents(store: ArtifactStore) -> dict[str, str]:
    return {a.key: a.digest for a in store.of_kind() if a.manifest.kind in MODELS}


def _is_worker(process: psutil.Process, stage: Platform) -> bool:
    try:
        mine = process.environ().get("PREFECT_API_URL") == stage.environment["PREFECT_API_URL"]
        return mine and "gpu" in process.cmdline() and "worker" in process.cmdline()
    except psutil.Error:
        return False
