"""One training on two processes: the same result as on one, and an end to all where one ends."""

import json
import os
import runpy
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
from safetensors.torch import load_file

from pedfrac.config import AugmentConfig, ModelConfig, RetrainConfig, load_config
from pedfrac.distributed import ALONE, MappedArray, Ranks
from pedfrac.errors import PedfracError
from pedfrac.imbalance import film_weights, make_loss
from pedfrac.models import build_model, resolve_devices
from pedfrac.training import CHECKPOINT, MODEL, seed_weights, train_on

toy = runpy.run_path(str(Path(__file__).parent / "test_training.py"))
STILL = AugmentConfig(**dict.fromkeys(AugmentConfig.model_fields, 0))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def network(backbone: str = "convnextv2_atto", **options):
    """Return what builds a network whose weights the seed decides, in any process."""
    options = options or {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
    config = ModelConfig(backbone=backbone, size=toy["SIZE"], weights="none", options=options)
    return partial(build_model, config, 2)


def run(folder: Path, count: int, settings, build=None, on_epoch=lambda epoch: None):
    """Train on so many processes; return weights and history."""
    folder.mkdir(exist_ok=True)
    seed_weights(settings.seed)
    train_on([CPU] * count, build or network(), toy["data"](), settings, folder, on_epoch=on_epoch)
    return load_file(folder / MODEL), json.loads((folder / "history.json").read_text())


def figures(history) -> list[float]:
    return [
        epoch[part][name]
        for epoch in history
        for part in ("training", "validation")
        for name in ("loss", "accuracy", "f1", "auroc")
    ]


@pytest.mark.parametrize(
    "changes",
    [
        # 90 films in steps of 89: one would be left over for two processes, and joins the others;
        # in steps of 11 the last has two, and shares of five and six
        {"imbalance": "weighted", "label_smoothing": 0.1, "batch_size": 11, "accumulation": 3},
        {"imbalance": "sampler", "batch_size": 89, "ema_decay": 0},
    ],
)
def test_two_processes_learn_what_one_does(tmp_path, changes):
    # Adam divides by the size of the gradient, so it would make a rounding of nothing a step
    settings = toy["config"](augment=STILL, epochs=2, learning_rate=1e-3, seed=3, **changes)
    (one, history), (two, other) = (run(tmp_path / str(n), n, settings) for n in (1, 2))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-4, msg=name)
    np.testing.assert_allclose(figures(history), figures(other), atol=1e-4)
    for name in ("summary.json", "validation.csv"):
        lines = [(tmp_path / n / name).read_text().count("\n") for n in ("1", "2")]
        assert lines[0] == lines[1] > 1
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == sorted(
        path.name for path in (tmp_path / "2").iterdir()
    )


@pytest.mark.parametrize("imbalance", ["sampler", "focal", "weighted", "none"])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_shares_of_a_batch_add_up_to_its_loss(imbalance, count):
    settings = toy["config"](imbalance=imbalance, label_smoothing=0.1)
    labels = torch.tensor([0, 1, 0, 0, 1, 0, 0, 0, 1])
    logits = torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    loss, weights = make_loss(labels, 2, settings), film_weights(labels, settings)
    batch = torch.arange(7)
    parts = [own for rank in range(count) if len(own := Ranks(rank, count).share(batch))]
    assert torch.equal(torch.cat(parts), batch)
    total = sum(loss(logits[own], labels[own]) * weights[own].sum() for own in parts)
    torch.testing.assert_close(total / weights[batch].sum(), loss(logits[batch], labels[batch]))


def test_with_augmentation_and_dropout_it_learns_as_well(tmp_path):
    build = network(depths=[1, 1, 1, 1], dims=[8, 16, 24, 32], drop_path_rate=0.2)
    settings = toy["config"](epochs=10, imbalance="none")
    (_, one), (_, two) = (run(tmp_path / str(n), n, settings, build) for n in (1, 2))
    best = [max(epoch["validation"]["auroc"] for epoch in history) for history in (one, two)]
    assert min(best) > 0.85 and abs(best[0] - best[1]) < 0.1
    first = [history[0]["training"]["loss"] for history in (one, two)]
    assert first[0] != first[1]  # each process draws its own changes


class Stop(Exception):
    pass


def test_stopped_by_the_caller_it_goes_on_to_the_same_weights(tmp_path):
    def stop(epoch):
        if epoch["epoch"] == 2:
            raise Stop

    settings, seen = toy["config"](epochs=4), []
    whole, _ = run(tmp_path / "whole", 2, settings)
    with pytest.raises(Stop):
        run(tmp_path / "part", 2, settings, on_epoch=stop)
    assert psutil.Process().children() == [] or all(
        "resource_tracker" in " ".join(child.cmdline()) for child in psutil.Process().children()
    )
    resumed, _ = run(
        tmp_path / "part", 2, settings, on_epoch=lambda epoch: seen.append(epoch["epoch"])
    )
    assert seen == [1, 2, 3, 4]
    assert toy["same"](whole, resumed)


KILLED = """
import runpy, sys
from pathlib import Path
here = runpy.run_path(sys.argv[2], run_name="killed")
settings = here["toy"]["config"](epochs=int(sys.argv[3]))
here["run"](Path(sys.argv[1]), 2, settings, on_epoch=lambda e: print(e["epoch"], flush=True))
"""


def start(folder: Path, epochs: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), __file__, str(epochs)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ranks_of(caller: int) -> list[psutil.Process]:
    """Return the processes of a training, the first one first."""
    below = psutil.Process(caller).children()
    ranks = [child for child in below if "spawn_main" in " ".join(child.cmdline())]
    return sorted(ranks, key=lambda child: child.create_time())


@pytest.mark.parametrize("all_of_them", [True, False])
def test_killed_outright_nothing_is_left_and_it_goes_on(tmp_path, all_of_them):
    folder = tmp_path / "killed"
    caller = start(folder, 400)
    try:
        assert caller.stdout is not None
        assert [caller.stdout.readline() for _ in range(2)] == ["1\n", "2\n"]
        ranks = ranks_of(caller.pid)
        assert len(ranks) == 2
        (os.killpg if all_of_them else os.kill)(caller.pid, signal.SIGKILL)
        assert psutil.wait_procs(ranks, timeout=10)[1] == []
    finally:
        caller.kill()
        caller.wait(10)
    assert (folder / CHECKPOINT).exists()
    seen = []

    def stop(epoch):
        seen.append(epoch["epoch"])
        if len(seen) == 4:
            raise Stop

    with pytest.raises(Stop):
        run(folder, 2, toy["config"](epochs=400), on_epoch=stop)
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_all_within_seconds(tmp_path, rank):
    died = []

    def kill(epoch):
        ranks = ranks_of(os.getpid())
        if not died:
            ranks[rank].kill()
            died.append(time.monotonic())

    message = rf"^toy: process {rank + 1} of 2 \(cpu\) was killed by signal 9.*last finished epoch"
    with pytest.raises(PedfracError, match=message):
        run(tmp_path / "a", 2, toy["config"](epochs=400), on_epoch=kill)
    assert time.monotonic() - died[0] < 10
    assert ranks_of(os.getpid()) == []


def test_an_error_in_a_process_is_the_callers(tmp_path):
    settings = toy["config"](learning_rate=1e30, epochs=6, clip_norm=None)
    with pytest.raises(PedfracError, match="^toy: the network's output is no number any more"):
        run(tmp_path / "a", 2, settings)


def test_batch_normalisation_on_the_cpu_is_refused():
    model = network("resnet10t", channels=None)
    ALONE.with_batch_norm(torch.nn.BatchNorm2d(3))
    with pytest.raises(PedfracError, match="batch normalisation.*runtime.devices: one"):
        Ranks(0, 2).with_batch_norm(torch.nn.Sequential(torch.nn.BatchNorm2d(3)))


def test_a_batch_smaller_than_the_devices_is_refused(tmp_path):
    with pytest.raises(PedfracError, match="batch_size 2 cannot be shared among 3 devices"):
        run(tmp_path, 3, toy["config"](batch_size=2))


def test_a_mapped_array_is_sent_by_name(tmp_path):
    films = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.save(tmp_path / "films.npy", films)
    mapped = np.load(tmp_path / "films.npy", mmap_mode="r")
    sent = MappedArray.of(mapped)
    assert isinstance(sent, MappedArray) and np.array_equal(sent.open(), films)
    assert MappedArray.of(mapped[1:]) is not None and not isinstance(
        MappedArray.of(mapped[1:]), MappedArray
    )
    assert MappedArray.of(films) is films


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
