"""Children in processes side by side, in every way that they end (tests/support/side_by_side.py).

Not here: the trainings (tests/system/test_retrain.py), and children on pools of workers.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "side_by_side.py"


def start(folder: Path, *names: str) -> subprocess.Popen[str]:
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        [sys.executable, SCRIPT, *names],
        cwd=folder,
        env=own | {"PREFECT_HOME": str(folder / "prefect")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("children")


@pytest.fixture(scope="module")
def ended(folder):
    """What the parent says: its threads, and what became of each child by its name."""
    process = start(folder, "one", "killed", "fails", "two")
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(said)


def test_a_child_that_is_killed_is_named_and_the_others_are_kept(ended):
    assert ended["children"]["killed"].startswith("killed: its process was killed, perhaps for")
    assert (ended["children"]["one"], ended["children"]["two"]) == ("one.json", "two.json")


def test_an_error_of_a_child_is_raised_with_its_reason(ended):
    assert ended["children"]["fails"] == "no images"


def test_each_child_has_a_process_and_its_share_of_the_threads(folder, ended):
    told = [json.loads((folder / f"{name}.json").read_text()) for name in ("one", "two")]
    assert len({one["process"] for one in told}) == 2
    assert {one["threads"] for one in told} == {max(1, ended["threads"] // 2)}


def test_children_end_with_a_parent_that_is_killed(tmp_path):
    process, told = start(tmp_path, "stays"), tmp_path / "stays.json"
    try:
        _wait_for(lambda: told.exists() and told.read_text())
        child = psutil.Process(json.loads(told.read_text())["process"])
        assert child.is_running()
    finally:
        server = [one for one in psutil.Process(process.pid).children() if _serves(one)]
        assert server
        process.kill()
        for one in server:
            one.kill()  # Prefect's temporary one outlasts a parent that is killed
    _wait_for(lambda: not child.is_running())


def _serves(process: psutil.Process) -> bool:
    return "uvicorn" in process.cmdline()


def _wait_for(happened, seconds: float = 300):
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.1)
