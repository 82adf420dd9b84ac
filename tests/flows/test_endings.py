"""What goes wrong around a command ends in one line that says what to do, and exit code 1.

Not here: signals (test_interrupting.py), and data or configuration with faults (tests/system).
"""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from commands import pedfrac
from made_findings import make_config, make_findings

from pedfrac.phantoms.dataset import COLUMNS
from pedfrac.reporting.schema import write_findings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an empty data set, an image, metrics, and files in UTF-16."""
    root = tmp_path_factory.mktemp("endings")
    for name in ("data/images", "data/labels", "bundle"):
        (root / name).mkdir(parents=True)
    (root / "data/dataset.csv").write_text(",".join(COLUMNS) + "\n")
    pixels = np.random.default_rng(0).integers(0, 65535, (600, 400), dtype=np.uint16)
    cv2.imwrite(str(root / "image.png"), pixels)
    write_findings(root, make_findings(60, make_config(evaluation={"resamples": 10})))
    for name in ("wide.json", "wide.yaml"):
        (root / name).write_text('{"data": 1}', encoding="utf-16")
    return root


def one_line(done) -> str:
    assert done.returncode == 1, done.stderr[-3000:]
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("pedfrac: ")
    return line.removeprefix("pedfrac: ")


S3 = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": "localhost:9000"}


@pytest.mark.parametrize(
    ("arguments", "env", "told"),
    [
        (
            ["train-age", "-d", "data"],
            {"PREFECT_API_URL": "http://127.0.0.1:9/api"},
            "no Prefect server answers at http://127.0.0.1:9/api",
        ),
        (
            ["artifacts", "list", "--root", "s3://bucket/prefix"],
            S3,
            "AWS_ENDPOINT_URL: Invalid endpoint: localhost:9000; it must look like http://",
        ),
        (
            ["predict", "image.png", "-b", "./bundle", "--device", "mps"],
            {},
            "device 'mps': allowed are auto, cpu, cuda and cuda:N",
        ),
        (["report", "metrics.json", "-o", "/dev/full"], {}, "No space left on device; make room"),
        (
            ["records", "--no-images", "-d", "data", "--set", "artifacts=image.png"],
            {},
            "image.png/.locks: Not a directory; a file is where a folder must be",
        ),
        (["report", "wide.json"], {}, "wide.json: groups: must be given"),
        (["records", "-c", "wide.yaml"], {}, "wide.yaml: is not YAML"),
    ],
)
def test_one_line_says_what_is_wrong(folder, arguments, env, told):
    assert told in one_line(pedfrac(folder, *arguments, env=env))


def test_what_nobody_foresaw_leaves_its_traceback_in_a_file(tmp_path):
    program = """
from flows.cli.endings import ending_well
with ending_well():
    {}["bug"]
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    line = one_line(done)
    (file,) = tmp_path.iterdir()
    assert line == f"unexpected error (KeyError: 'bug'); its traceback is in {file}"
    assert "Traceback" in file.read_text() and "in <module>" in file.read_text()


def test_a_reader_that_has_read_enough_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "reproduce", "--list"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_output_of_a_poor_encoding_lacks_letters_and_nothing_else(folder):
    done = pedfrac(folder, "reproduce", "--list", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "Published protocols" in done.stdout and "?" in done.stdout
