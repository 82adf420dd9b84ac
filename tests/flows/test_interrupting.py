"""A signal ends a command at once, and all that it has begun: threads, processes, the server."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

# a thread that nothing interrupts, as trainings are, and a process that ignores SIGTERM
FLOW = """
import subprocess, sys, time
from prefect import flow, task

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"

@task
def train():
    subprocess.Popen([sys.executable, "-c", STUBBORN])
    print("begun", flush=True)
    time.sleep(600)

@flow
def retrain():
    train.submit().wait()
"""
PROGRAM = """
from flows.cli.endings import ending_well
from flows.cli.orchestrated import run_flow
from flows.cli.surroundings import prepare_surroundings
prepare_surroundings()
with ending_well():
    run_flow("waiting:retrain")
"""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Commands under way, one a signal: begun at once, with no database yet, behind a proxy."""
    folder = tmp_path_factory.mktemp("waiting")
    (folder / "waiting.py").write_text(FLOW)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    own = {"PYTHONPATH": path, "PREFECT_HOME": str(folder / "home")}
    own["http_proxy"] = "http://127.0.0.1:9"  # where nothing answers
    processes = {
        number: subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for number in SIGNALS
    }
    yield processes
    for process in processes.values():
        process.kill()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_whose_threads_are_at_work(begun, number):
    process = begun[number]
    assert any("begun" in line for line in process.stdout), process.stderr.read()
    below = psutil.Process(process.pid).children(recursive=True)
    assert any("prefect.server.api.server:create_app" in one.cmdline() for one in below)
    sent = time.monotonic()
    if number == signal.SIGTERM:
        os.kill(process.pid, number)  # as a service manager does
    else:
        os.killpg(process.pid, number)  # as a terminal does
    told = process.communicate(timeout=120)[1]
    assert time.monotonic() - sent < 60
    assert process.returncode == -number  # which a shell shows as 130 at Ctrl-C
    interrupted = "pedfrac: interrupted; what is done is kept" in told
    assert interrupted == (number == signal.SIGINT)
    assert "Traceback" not in told
    assert len(below) > 1 and not psutil.wait_procs(below, timeout=10)[1]
