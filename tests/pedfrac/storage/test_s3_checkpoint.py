"""Unfinished artifacts on a real S3 server: another node goes on, and never from half a copy."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import toy_training as toy
from safetensors.torch import load_file

from pedfrac.storage import s3_checkpoint
from pedfrac.storage.s3_checkpoint import RemotePartial, discard
from pedfrac.storage.s3_client import Objects
from pedfrac.storage.store import ArtifactStore
from pedfrac.training.checkpoint import MODEL


@pytest.fixture
def objects(s3_root):
    return Objects(s3_root)


@pytest.fixture
def node(objects, tmp_path, monkeypatch):
    """A maker of nodes: the work folder of each, and what it keeps elsewhere of it."""
    monkeypatch.setattr(s3_checkpoint, "SECONDS_BETWEEN", 0.0)

    def make(name):
        (folder := tmp_path / name).mkdir(exist_ok=True)
        return folder, RemotePartial(objects, "kind/key", tmp_path / f"{name}-snapshots")

    return make


def write(folder, **contents):
    for name, content in contents.items():
        (folder / f"{name}.tmp").write_text(content)
        (folder / f"{name}.tmp").replace(folder / name)


def read(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def save(node, name, **contents):
    folder, remote = node(name)
    remote.restore(folder)
    write(folder, **contents)
    remote.save(folder)
    remote.save_last()
    remote.close()
    return folder


def test_another_node_goes_on_and_the_first_then_from_there(node, objects):
    save(node, "one", model="1", state="1")
    folder = save(node, "two", state="2")
    assert read(folder) == {"model": "1", "state": "2"}
    folder, remote = node("one")
    remote.restore(folder)
    assert read(folder) == {"model": "1", "state": "2"}
    held = {found.name for found in objects.listing(".partial/kind/key/")}
    assert len(held) == 3  # model, state and manifest; the old state is gone
    discard(objects, "kind/key")
    assert list(objects.listing(".partial/")) == []


def test_what_is_newer_here_stays(node):
    save(node, "one", state="1")
    folder, remote = node("one")
    write(folder, state="2")
    remote.restore(folder)
    assert read(folder) == {"state": "2"}


def test_only_what_changed_is_sent(node, objects, monkeypatch):
    folder, remote = node("one")
    sent = []
    upload = Objects.upload
    monkeypatch.setattr(
        Objects, "upload", lambda self, files: (sent.append(len(files)), upload(self, files))
    )
    for number in range(3):
        write(folder, state=str(number), model="best")
        remote.save(folder)
        remote.save_last()
    assert sent == [2, 1, 1]


def test_saves_in_quick_succession_are_sent_once_and_the_last_at_the_end(
    node, objects, monkeypatch
):
    monkeypatch.setattr(s3_checkpoint, "SECONDS_BETWEEN", 3600.0)
    folder, remote = node("one")
    remote._begun = -1e9
    for number in range(5):
        write(folder, state=str(number))
        remote.save(folder)
    remote._running.result()
    other, elsewhere = node("two")
    elsewhere.restore(other)
    assert read(other) == {"state": "0"}
    remote.save_last()
    remote.close()
    elsewhere.restore(other)
    assert read(other) == {"state": "4"}


def test_an_upload_is_of_one_moment_though_the_maker_goes_on(node, monkeypatch):
    folder, remote = node("one")
    write(folder, model="1", state="1")
    go_on, upload = threading.Event(), Objects.upload

    def late(self, files):
        go_on.wait(30)
        upload(self, files)

    monkeypatch.setattr(Objects, "upload", late)
    remote.save(folder)
    write(folder, model="2", state="2")
    go_on.set()
    remote.close()
    other, elsewhere = node("two")
    elsewhere.restore(other)
    assert read(other) == {"model": "1", "state": "1"}


def test_half_a_copy_and_a_damaged_one_are_not_taken(node, objects, caplog):
    save(node, "one", model="1", state="1")
    (first, *_) = [f.name for f in objects.listing(".partial/") if "manifest" not in f.name]
    objects.put(first, b"damaged")
    folder, remote = node("two")
    write(folder, state="mine")
    os.utime(folder / "state", (0, 0))
    remote.restore(folder)
    assert read(folder) == {"state": "mine"}
    assert "missing or damaged" in caplog.text
    objects.delete([".partial/kind/key/manifest.json"])
    folder, remote = node("three")
    remote.restore(folder)
    assert read(folder) == {}


def test_a_store_that_is_away_costs_a_warning(node, monkeypatch, caplog):
    from pedfrac.storage import s3_client as module

    folder, remote = node("one")
    write(folder, state="1")
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    remote.save(folder)
    remote.save_last()
    assert "was not uploaded" in caplog.text


# A training on a node of its own, which is killed when it has begun its fourth epoch.
TRAIN = """
import logging, os, signal, sys
import torch
import toy_training as toy
logging.basicConfig(level=logging.INFO)
from pedfrac.storage import s3_checkpoint
from pedfrac.storage.store import ArtifactStore
from pedfrac.training.trainer import train
torch.set_num_threads(1)
s3_checkpoint.SECONDS_BETWEEN = 0.0
store = ArtifactStore(sys.argv[1])
def make(folder):
    def on_epoch(epoch):
        store.checkpoint(folder)
        print(epoch["epoch"], flush=True)
        for remote in store._backend._partials.values():
            remote._running.result()
        if str(epoch["epoch"]) == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)
    parts = toy.network(), toy.data(), toy.config()
    train(*parts, folder, device=toy.CPU, on_epoch=on_epoch)
print(store.produce("model", make, resumable=True).path)
"""


def test_a_training_that_was_killed_ends_on_another_node_as_if_nothing_had_been(
    s3_root, objects, tmp_path, monkeypatch
):
    def train(name, killed_after):
        monkeypatch.setenv("PEDFRAC_CACHE", str(tmp_path / name))
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        words = [sys.executable, "-c", TRAIN, s3_root, str(killed_after)]
        return subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=300, env=env
        )

    killed = train("one", 3)
    assert killed.returncode == -signal.SIGKILL and killed.stdout.split() == ["1", "2", "3"]
    assert not ArtifactStore(s3_root).exists(ArtifactStore.key("model"))
    done = train("two", None)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "goes on after epoch 3" in done.stderr
    *epochs, path = done.stdout.split()
    assert epochs == ["1", "2", "3", "4", "5", "6"]
    assert list(objects.listing(".partial/")) == []
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = toy.run(tmp_path / "whole", toy.config())
    torch.set_num_threads(threads)
    assert toy.same(whole, load_file(Path(path) / MODEL))
    for name in ("history.json", "validation.csv", "summary.json"):
        assert (Path(path) / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
