"""Weights fetched from a hub, and a hub that cannot be reached: a real server, the real client."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from servers import free_ports

from pedfrac.config.training import ModelConfig
from pedfrac.models.classifier import build_model

BACKBONE = "resnet10t"
REPOSITORY = "timm/resnet10t.c3_in1k"
LOOK = """
import sys
from pedfrac.config.loading import load_config
from pedfrac.models.weights import hub_backbones, unreachable_weights
wanted = hub_backbones(load_config(None, sys.argv[1:]))
print("\\n".join(unreachable_weights(wanted.items())))
"""
SETTINGS = ["data.root=.", f"fracture.model.backbone={BACKBONE}", "age.model.weights=none"]


class Hub(SimpleHTTPRequestHandler):
    """Serves files as huggingface.co does, as far as its client asks."""

    def end_headers(self) -> None:
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "0" * 40)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def run(home: Path, endpoint: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a hub, whose client reads its settings once, on import."""
    given = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | given,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A hub's folder with the weights of one network."""
    folder = tmp_path_factory.mktemp("hub")
    file = folder / REPOSITORY / "resolve/main/model.safetensors"
    file.parent.mkdir(parents=True)
    torch.manual_seed(5)
    save_file(timm.create_model(BACKBONE).state_dict(), file)
    return folder


def test_fetched_weights_are_those_of_the_hub_and_can_be_trained_from(published, tmp_path):
    options = [word for setting in SETTINGS[1:] for word in ("--set", setting)]
    with hub(published) as endpoint:
        done = run(
            tmp_path / "home",
            endpoint,
            "-m",
            "flows.cli",
            "weights",
            str(tmp_path),
            *options,
            "--json",
        )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["weights"]
    assert row["set"] == "fracture.model.weights"
    there = load_file(published / REPOSITORY / "resolve/main/model.safetensors")
    network = build_model(ModelConfig(backbone=BACKBONE, weights=row["to"], size=64), 2).network
    loaded = network.state_dict()
    assert torch.equal(loaded["layer4.0.conv1.weight"], there["layer4.0.conv1.weight"])
    assert torch.allclose(loaded["conv1.0.weight"], there["conv1.0.weight"].sum(1, keepdim=True))


def test_a_hub_that_cannot_be_reached_is_an_error_of_one_line(tmp_path):
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"
    done = run(tmp_path / "home", nowhere, "-m", "flows.cli", "weights", str(tmp_path / "made"))
    assert done.returncode != 0
    assert "cannot be fetched from the hub" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "made").exists()


def test_what_the_hub_does_not_give_is_named_before_anything_trains(published, tmp_path):
    with hub(published) as endpoint:
        assert run(tmp_path / "home", endpoint, "-c", LOOK, *SETTINGS).stdout.strip() == ""
        options = [word for setting in SETTINGS[1:] for word in ("--set", setting)]
        run(tmp_path / "full", endpoint, "-m", "flows.cli", "weights", str(tmp_path), *options)
    (line,) = run(tmp_path / "home", endpoint, "-c", LOOK, *SETTINGS).stdout.splitlines()
    assert line.startswith(f"fracture.model.weights is 'hub', and {REPOSITORY} cannot be reached")
    # what the hub's cache has is there
    assert run(tmp_path / "full", endpoint, "-c", LOOK, *SETTINGS).stdout.strip() == ""
