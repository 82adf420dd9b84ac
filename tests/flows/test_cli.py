"""The command line itself: options that commands share, and the log beside a progress bar.

Not here: what commands do (tests/system) and the command ``artifacts`` (test_artifacts.py).
"""

import logging
import os
import pty
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.infrastructure.log import is_news
from pedfrac.errors import PedfracError

CONMETRICD = (
    *("records", "split", "pack", "train-age", "train-fracture"),
    *("evaluate", "explain", "retrain", "reproduce"),
)


@pytest.mark.parametrize("command", CONMETRICD)
def test_each_command_takes_the_options_of_a_configuration(command):
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0
    for option in ("--config", "-c", "--data", "-d", "--set", "--missing", "--json"):
        assert re.search(rf"(^|[\s│]){option}\s", shown.output), option


def record(message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("prefect.task_runs", logging.INFO, "", 0, message, arguments, None)


@pytest.mark.parametrize(
    ("line", "news"),
    [
        (record("Finished in state %s", "Completed()"), False),
        (record("Encountered exception during execution: %r", PedfracError("no")), False),
        (record("Encountered exception during execution: %r", KeyError("bug")), True),
        (record("Task run failed with exception: %r", PedfracError("no")), True),
        (record("%s: epoch %d/%d", "age", 1, 2), True),
    ],
)
def test_a_line_is_shown_once(line, news):
    assert is_news(line) is news


BESIDE_A_BAR = """
import logging
from flows.infrastructure.log import show_log
from tasks.progress import progress
show_log()
with progress("p", "working") as show:
    for done in range(3):
        show(done, 3)
        logging.getLogger("pedfrac.x").info("step %d made", done)
"""


def test_log_lines_stand_above_the_bar():
    """On a terminal, where the bar is redrawn in its own line."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-c", BESIDE_A_BAR]
    subprocess.run(command, stdout=theirs, stderr=theirs, env=environment, check=True, timeout=120)
    os.close(theirs)
    written = os.read(ours, 1 << 16).decode()
    os.close(ours)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "\n").splitlines()
    for step in range(3):
        assert any(re.fullmatch(rf"\d\d:\d\d:\d\d step {step} made *", line) for line in lines)
