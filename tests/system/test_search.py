"""A search by the command line: killed, gone on with, and its best configuration used."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from commands import TINY, tiny

from pedfrac.config.phantoms import PhantomConfig
from pedfrac.phantoms.dataset import write_phantoms

SPACE = {
    "name": "rates",
    "trials": 4,
    "pruning": False,
    "space": {"fracture.training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    write_phantoms(folder / "data", PhantomConfig(images=160, scale=0.15))
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    return folder


@pytest.fixture(scope="module")
def left(folder) -> set:
    """The trials that a killed search left."""
    settings = [f"--set={name}={value}" for name, value in TINY.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "search", "--search", "space.yaml", *settings],
        cwd=folder,
        env=os.environ | {"PREFECT_HOME": str(folder / "prefect")},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    trials = folder / "artifacts" / "trial"
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        if len(list(trials.glob("*/manifest.json"))) >= 2:
            break
        time.sleep(0.05)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    return {path.parent.name for path in trials.glob("*/manifest.json")}


@pytest.mark.platform  # for its minutes
def test_a_killed_search_goes_on_and_writes_the_best(folder, left):
    done = tiny(folder, "search", "--search", "space.yaml", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    trials = found["trials"]
    assert [one["trial"] for one in trials] == [0, 1, 2, 3]
    assert {one["state"] for one in trials} == {"finished"}
    assert found["metric"] == max(one["metric"] for one in trials)
    assert len({one["fracture.training.learning_rate"] for one in trials}) == 4
    kept = {path.parent.name for path in (folder / "artifacts/trial").glob("*/manifest.json")}
    assert left < kept and len(kept) == 4
    best = yaml.safe_load((folder / "results/search/best.yaml").read_text())
    rate = best["fracture"]["training"]["learning_rate"]
    assert rate == trials[found["trial"]]["fracture.training.learning_rate"]
    # no test image was scored for it
    assert not (folder / "artifacts/evaluation").exists()


@pytest.mark.platform
def test_the_best_is_a_configuration_whose_model_is_there(folder, left):
    done = tiny(folder, "train-fracture", "--config", "results/search/best.yaml", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    models = len(list((folder / "artifacts/fracture-model").glob("*/manifest.json")))
    assert models == 4  # it is one of those that were tried


def test_a_wrong_search_is_one_clear_line(folder):
    (folder / "wrong.yaml").write_text("trials: many\n")
    done = tiny(folder, "search", "--search", "wrong.yaml")
    assert done.returncode == 1
    assert done.stderr.startswith("pedfrac: wrong.yaml: trials: ")
    assert done.stderr.count("\n") == 1
