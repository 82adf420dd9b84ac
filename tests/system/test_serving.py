"""A registered bundle at work in MLflow's own commands: serve and predict, as `pedfrac predict`."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from servers import free_ports
from small_bundles import write_image, write_small_bundle
from typer.testing import CliRunner

from flows.cli.app import app
from pedfrac.config.locations import TrackingConfig
from pedfrac.mlflow_runs import start_run, tracking_uri
from pedfrac.promotion.registry import REQUIREMENTS, Registry

MODEL = "models:/pedfrac@challenger"
# the command where some modules are not installed, then which ones it has taken to answer
PREDICT = """
import json, sys
for name in json.loads(sys.argv.pop(1)):
    sys.modules[name] = None
from mlflow.cli import cli
try:
    cli()
finally:
    taken = sorted(name for name, module in sys.modules.items() if module and "." not in name)
    print(json.dumps([taken, sys.modules["pedfrac"].__file__]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with images, a bundle, and a registry that holds it as the challenger."""
    folder = tmp_path_factory.mktemp("serving")
    for number in range(2):
        write_image(folder / f"{number}.png", number)
    bundle = write_small_bundle(folder)
    with start_run(TrackingConfig(), folder, "retrain", {}) as run:
        registry = Registry.of(TrackingConfig(), folder)
        assert registry.register(bundle, run.run_id, {"bundle": "bundle/a"}).number == 1
    return folder


@pytest.fixture(scope="module")
def environment(folder):
    """An environment that knows the registry, and this package by the model alone."""
    own = {"MLFLOW_TRACKING_URI": tracking_uri(TrackingConfig(), folder)}
    own |= {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    # as in an environment that is activated: MLflow starts uvicorn by its name
    own |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    own |= {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums in another order are others
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | own


@pytest.fixture(scope="module")
def ask(folder, environment):
    """Return what asks the model served by MLflow, which is ended with all its processes."""
    (port,) = free_ports(1)
    command = f"-m mlflow models serve -m {MODEL} --env-manager local -h 127.0.0.1 -p {port}"
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command.split()],
            **{"cwd": folder, "env": environment, "stdout": log, "stderr": log},
            start_new_session=True,
        )

    def ask(request: dict) -> dict:
        message = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            data=json.dumps(request).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(message, timeout=300) as answer:
            return json.loads(answer.read(), parse_constant=pytest.fail)  # NaN is no JSON

    try:
        _wait_until_up(process, f"http://127.0.0.1:{port}/ping", folder / "serve.log")
        yield ask
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _wait_until_up(process, url, log):
    while process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(log.read_text()[-3000:])


@pytest.fixture(scope="module")
def predicted(folder):
    """What `pedfrac predict` says of the images, whose age is known of one."""
    (folder / "ages.csv").write_text("filestem,age\n0,7\n")
    images = [str(folder / f"{number}.png") for number in range(2)]
    known = ["--bundle", str(folder / "bundle"), "--ages", str(folder / "ages.csv")]
    done = CliRunner().invoke(app, ["predict", *images, *known, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["images"]


def said(rows):
    """Return the scores alone: what an image is called depends on how it came.

    Boxes are JSON in a column of text here, and a list, or null, where the command prints JSON.
    """
    left = ("file", "left_to_reader", "bundle", "heat_map")
    found = [{name: value for name, value in row.items() if name not in left} for row in rows]
    for row in found:
        if isinstance(row["boxes"], str):
            row["boxes"] = json.loads(row["boxes"] or "null")
    return found


def coded(path):
    return base64.b64encode(path.read_bytes()).decode()


def test_a_request_with_images_in_it_is_answered_as_by_pedfrac_predict(folder, ask, predicted):
    request = [{"image": coded(folder / "0.png"), "age": 7}, {"image": coded(folder / "1.png")}]
    answers = ask({"dataframe_records": request})["predictions"]
    assert said(answers) == said(predicted)
    assert [row["routed_by"] for row in answers] == ["age", "image"]
    assert [row["left_to_reader"] for row in answers] == [
        row["call"] == "left to a reader" for row in predicted
    ]


def test_a_heat_map_comes_on_request_and_a_bad_image_costs_nobody_else(folder, ask):
    request = [{"path": str(folder / "1.png"), "age": 3}, {"image": coded(folder / "ages.csv")}]
    good, bad = ask({"dataframe_records": request, "params": {"heat_map": True}})["predictions"]
    drawn = np.frombuffer(base64.b64decode(good["heat_map"]), np.uint8)
    assert cv2.imdecode(drawn, cv2.IMREAD_UNCHANGED).shape == (60, 40, 4)
    assert bad["error"].startswith("row 2: ") and bad["probability"] is None


def test_a_wrong_request_is_refused_and_says_why(ask):
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask({"dataframe_records": [{"path": "0.png", "age": -1}]})
    assert refused.value.code == 400
    assert "row 1: age -1.0 is no number of years 0-120" in json.load(refused.value)["message"]


def test_the_predict_command_needs_what_is_required_and_nothing_else(
    folder, environment, predicted
):
    images = [{"path": "0.png", "age": 7}, {"path": "1.png"}]
    request = {"dataframe_records": images, "params": {"heat_map": True}}
    (folder / "request.json").write_text(json.dumps(request))
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    others = {Requirement(one).name for one in project["dependencies"]} - _with_theirs(REQUIREMENTS)
    assert {"prefect", "boto3", "onnxruntime"} <= others
    of = {
        module: {one.lower() for one in names} for module, names in packages_distributions().items()
    }
    lacking = sorted(module for module, names in of.items() if names <= others)
    command = f"models predict -m {MODEL} --env-manager local -i request.json -o answers.json"
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, json.dumps(lacking), *command.split()],
        **{"cwd": folder, "env": environment, "capture_output": True, "text": True},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads((folder / "answers.json").read_text())["predictions"]
    assert said(answers) == said(predicted) and all(row["heat_map"] for row in answers)
    modules, package = json.loads(done.stderr.strip().splitlines()[-1])
    assert "/artifacts/code/pedfrac/" in package  # it came with the model
    assert set(REQUIREMENTS) <= set().union(*(of.get(module, ()) for module in modules))


def _with_theirs(names) -> set[str]:
    """Return distributions with all that they require here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        if (name := waiting.pop().lower()) not in found:
            found.add(name)
            with suppress(PackageNotFoundError):  # for another platform
                waiting += [
                    one.name for one in map(Requirement, requires(name) or []) if _here(one)
                ]
    return found


def _here(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})
