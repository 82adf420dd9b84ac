"""Ctrl-C ends a command at once, and all that it has begun."""

import os
import signal
import subprocess
import sys
import time

# a thread that nothing interrupts, as trainings are
FLOW = """
import time
from prefect import flow, task

@task
def train():
    print("begun", flush=True)
    time.sleep(600)

@flow
def retrain():
    train.submit().wait()
"""
PROGRAM = "from flows.infrastructure.embedded import run_flow; run_flow('waiting:retrain')"


def test_ctrl_c_ends_a_command_whose_threads_are_at_work(tmp_path):
    (tmp_path / "waiting.py").write_text(FLOW)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert any("begun" in line for line in process.stdout)
        interrupted = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        told = process.communicate(timeout=120)[1]
        assert time.monotonic() - interrupted < 60
    finally:
        process.kill()
    assert process.returncode == 130
    assert "pedfrac: interrupted; what is done is kept" in told
    assert "Traceback" not in told
    assert subprocess.run(["pgrep", "-g", str(process.pid)], check=False).returncode == 1
