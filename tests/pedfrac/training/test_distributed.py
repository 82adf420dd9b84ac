"""One training on two processes: the same result as on one, and an end to all where one ends."""

import copy
import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import toy_training as toy
from safetensors.torch import load_file

from pedfrac.compute.devices import resolve_devices
from pedfrac.config.loading import load_config
from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.training import AugmentConfig, ModelConfig
from pedfrac.errors import PedfracError
from pedfrac.models.classifier import build_model
from pedfrac.packs.mapped import JoinedImages, MappedArray
from pedfrac.training.checkpoint import CHECKPOINT, MODEL
from pedfrac.training.distributed import ALONE, Ranks
from pedfrac.training.imbalance import image_weights, make_loss
from pedfrac.training.trainer import seed_weights, train_on

STILL = AugmentConfig(**dict.fromkeys(AugmentConfig.model_fields, 0))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def network(backbone: str = "convnextv2_atto", **options):
    """Return what builds a network whose weights the seed decides, in any process."""
    options = options or {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
    config = ModelConfig(backbone=backbone, size=toy.SIZE, weights="none", options=options)
    return partial(build_model, config, 2)


def run(folder: Path, count: int, settings, build=None, on_epoch=lambda epoch: None):
    """Train on so many processes; return weights and history."""
    folder.mkdir(exist_ok=True)
    seed_weights(settings.seed)
    train_on([CPU] * count, build or network(), toy.data(), settings, folder, on_epoch=on_epoch)
    return load_file(folder / MODEL), json.loads((folder / "history.json").read_text())


def metrics(history) -> list[float]:
    return [
        epoch[part][name]
        for epoch in history
        for part in ("training", "validation")
        for name in ("loss", "accuracy", "f1", "auroc")
    ]


def test_two_processes_learn_what_one_does(tmp_path):
    # 90 images in steps of 11: shares of six and five, and a last step of two images
    changes = {"imbalance": "weighted", "label_smoothing": 0.1, "batch_size": 11}
    settings = toy.config(augment=STILL, epochs=2, accumulation=3, learning_rate=1e-3, **changes)
    (one, history), (two, other) = (run(tmp_path / str(n), n, settings) for n in (1, 2))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-4, msg=name)
    np.testing.assert_allclose(metrics(history), metrics(other), atol=1e-4)
    for name in ("summary.json", "validation.csv"):
        lines = [(tmp_path / n / name).read_text().count("\n") for n in ("1", "2")]
        assert lines[0] == lines[1] > 1
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == sorted(
        path.name for path in (tmp_path / "2").iterdir()
    )


@pytest.mark.parametrize("imbalance", ["sampler", "focal", "weighted", "none"])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_shares_of_a_batch_add_up_to_its_loss(imbalance, count):
    settings = toy.config(imbalance=imbalance, label_smoothing=0.1)
    labels = torch.tensor([0, 1, 0, 0, 1, 0, 0, 0, 1])
    logits = torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    loss, weights = make_loss(labels, 2, settings), image_weights(labels, settings)
    batch = torch.arange(7)
    parts = [own for rank in range(count) if len(own := Ranks(rank, count).share(batch))]
    assert torch.equal(torch.cat(parts), batch)
    total = sum(loss(logits[own], labels[own]) * weights[own].sum() for own in parts)
    torch.testing.assert_close(total / weights[batch].sum(), loss(logits[batch], labels[batch]))


class Stop(Exception):
    pass


VARIED = toy.config(epochs=10, imbalance="sampler")
DROPPING = network(depths=[1, 1, 1, 1], dims=[8, 16, 24, 32], drop_path_rate=0.2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Weights and history of a training with augmentation and dropout on two processes."""
    return run(tmp_path_factory.mktemp("undisturbed"), 2, VARIED, DROPPING)


def test_with_augmentation_and_dropout_it_learns_as_well(tmp_path, undisturbed):
    histories = [run(tmp_path, 1, VARIED, DROPPING)[1], undisturbed[1]]
    best = [max(epoch["validation"]["auroc"] for epoch in history) for history in histories]
    assert min(best) > 0.85 and abs(best[0] - best[1]) < 0.1
    first = [history[0]["training"]["loss"] for history in histories]
    assert first[0] != first[1]  # each process draws its own changes


KILLED = """
import runpy, sys, time
from pathlib import Path
here = runpy.run_path(sys.argv[2], run_name="killed")
def on_epoch(epoch):
    print(epoch["epoch"], flush=True)
    time.sleep(60 * (epoch["epoch"] == 6))  # so that the kill comes first on a busy machine, too
here["run"](Path(sys.argv[1]), 2, here["VARIED"], here["DROPPING"], on_epoch)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), __file__],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def ranks_of(caller: int) -> list[psutil.Process]:
    """Return the processes of a training, the first one first."""
    below = psutil.Process(caller).children()
    ranks = [child for child in below if "spawn_main" in " ".join(child.cmdline())]
    return sorted(ranks, key=lambda child: child.create_time())


@pytest.mark.parametrize("whole_group", [True, False])
def test_killed_outright_nothing_runs_on_and_it_resumes(tmp_path, whole_group, undisturbed):
    caller = start(tmp_path)
    try:
        assert caller.stdout is not None
        assert [caller.stdout.readline() for _ in range(2)] == ["1\n", "2\n"]
        ranks = ranks_of(caller.pid)
        assert len(ranks) == 2
        (os.killpg if whole_group else os.kill)(caller.pid, signal.SIGKILL)
        assert psutil.wait_procs(ranks, timeout=10)[1] == []
    finally:
        caller.kill()
        caller.wait(10)
    assert (tmp_path / CHECKPOINT).exists()
    if whole_group:
        seen = []
        resumed = run(tmp_path, 2, VARIED, DROPPING, lambda epoch: seen.append(epoch["epoch"]))
        assert seen == list(range(1, 11))
        assert toy.same(resumed[0], undisturbed[0]) and resumed[1] == undisturbed[1]
        assert not (tmp_path / CHECKPOINT).exists()


def test_a_process_that_dies_ends_all_within_seconds(tmp_path):
    died = []

    def kill(epoch):
        ranks = ranks_of(os.getpid())
        if not died:
            ranks[1].kill()
            died.append(time.monotonic())

    message = r"^toy: process 2 of 2 \(cpu\) was killed by signal 9.*last finished epoch"
    with pytest.raises(PedfracError, match=message):
        run(tmp_path / "a", 2, toy.config(epochs=400), on_epoch=kill)
    assert time.monotonic() - died[0] < 10
    assert ranks_of(os.getpid()) == []


def test_an_error_in_a_process_is_the_callers(tmp_path):
    settings = toy.config(learning_rate=1e30, epochs=6, clip_norm=None)
    with pytest.raises(PedfracError, match="^toy: the network's output is no number any more"):
        run(tmp_path / "a", 2, settings)


def test_batch_normalisation_on_the_cpu_is_refused():
    normalised = network("resnet10t", channels=[8, 8, 8, 8])()
    assert ALONE.with_batch_norm(normalised) is normalised
    with pytest.raises(PedfracError, match="batch normalisation.*runtime.devices: one"):
        Ranks(0, 2).with_batch_norm(normalised)


def test_an_error_in_the_caller_ends_all(tmp_path):
    def stop(epoch):
        raise Stop

    with pytest.raises(Stop):
        run(tmp_path, 2, VARIED, DROPPING, stop)
    assert ranks_of(os.getpid()) == []


def test_a_batch_smaller_than_the_devices_is_refused(tmp_path):
    with pytest.raises(PedfracError, match="batch_size 2 cannot be shared among 3 devices"):
        run(tmp_path, 3, toy.config(batch_size=2))


def test_a_set_of_mapped_images_is_sent_by_name(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.save(tmp_path / "entries.npy", images)
    mapped = np.load(tmp_path / "entries.npy", mmap_mode="r")
    one = dataclasses.replace(toy.data().train, images=mapped)
    assert isinstance(one.__getstate__()["images"], MappedArray)
    again = copy.copy(one)  # goes through the same two methods as the way to another process
    assert isinstance(again.images, np.memmap) and np.array_equal(again.images, images)

    joined = JoinedImages([mapped], np.array([[0, 1], [0, 0]], np.int32))
    again = pickle.loads(pickle.dumps(dataclasses.replace(one, images=joined)))  # noqa: S301
    assert np.array_equal(again.images, images[::-1])
    assert isinstance(again.images[0], np.memmap)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["runtime.devices=two"], "runtime.devices.*'two'"),
        (["runtime.devices=0"], "runtime.devices.*found 0"),
        (["runtime.devices=all", "runtime.device=cuda:1"], "device cuda:1 is one"),
        (["runtime.devices=all", "runtime.device=cpu"], "give a number of processes"),
        (["runtime.devices=2", "runtime.parallel=2"], "either devices 2 or parallel 2"),
    ],
)
def test_what_is_impossible_is_refused(settings, message):
    with pytest.raises(PedfracError, match=message):
        load_config(None, ["data.root=x", *settings])


def test_devices_are_those_of_the_node():
    config = load_config(None, ["data.root=x", "runtime.devices=2", "runtime.device=cpu"])
    assert isinstance(config, RetrainConfig) and config.runtime.devices == "2"
    assert resolve_devices("cpu", "2") == [CPU, CPU]
    assert resolve_devices("auto", "one") == resolve_devices("auto", "1")[:1]
    if (count := torch.cuda.device_count()) > 0:
        assert len(resolve_devices("cuda", "all")) == count
        with pytest.raises(PedfracError, match=f"{count} GPUs are visible"):
            resolve_devices("cuda", str(count + 1))
