"""The training engine on tiny networks: it learns, keeps the best, and survives being killed."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy_training import CPU, SIZE, Stop, config, data, images, run, same, stop_after

from pedfrac.config.training import AugmentConfig, ModelConfig
from pedfrac.errors import PedfracError
from pedfrac.models.classifier import build_model
from pedfrac.training.checkpoint import CHECKPOINT, MODEL
from pedfrac.training.dataset import TrainingData
from pedfrac.training.trainer import seed_weights, train


@pytest.mark.parametrize("imbalance", ["sampler", "focal", "weighted", "none"])
def test_learns_under_every_correction_of_imbalance(tmp_path, imbalance):
    run(tmp_path / "a", config(imbalance=imbalance, epochs=14))
    summary = json.loads((tmp_path / "a/summary.json").read_text())
    assert summary["metric"] > 0.9


def test_going_on_gives_the_weights_of_an_undisturbed_run(tmp_path):
    whole = run(tmp_path / "whole", config())
    with pytest.raises(Stop):
        run(tmp_path / "part", config(), stop_after(3))
    seen = []
    resumed = run(tmp_path / "part", config(), lambda epoch: seen.append(epoch["epoch"]))
    assert seen == [1, 2, 3, 4, 5, 6]
    assert same(whole, resumed)
    for name in ("history.json", "summary.json", "validation.csv"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "part" / CHECKPOINT).exists()


def test_another_seed_gives_other_weights(tmp_path):
    one, other = (run(tmp_path / str(seed), config(epochs=1, seed=seed)) for seed in (0, 1))
    assert not same(one, other)


KILLED = """
import sys, torch
torch.set_num_threads(1)
import toy_training as t
from pathlib import Path
tell = lambda epoch: print(epoch["epoch"], flush=True)
t.run(Path(sys.argv[1]), t.config(epochs=40, patience=40), tell)
"""


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def first_epoch(process: subprocess.Popen, seconds: float | None = None) -> float:
    """Wait for the first line, or for so many seconds; return how long it took."""
    began = time.monotonic()
    select.select([process.stdout], [], [], seconds)
    return time.monotonic() - began


@pytest.mark.timeout(400)
def test_killed_ten_times_at_random_it_ends_with_the_same_weights(tmp_path):
    undisturbed = start(tmp_path / "whole")
    start_up = first_epoch(undisturbed)
    began = time.monotonic()
    assert undisturbed.wait(100) == 0
    epoch = (time.monotonic() - began) / 39
    # A try is killed in its start-up, or within its first few epochs: training, validation and
    # saving alike. Ten tries are far from all epochs, however fast or busy the machine is.
    draw = random.Random(20)
    for number in range(10):
        process = start(tmp_path / "killed")
        first_epoch(process, draw.uniform(0, start_up) if number % 2 else None)
        time.sleep(0 if number % 2 else draw.uniform(0, 3 * epoch))
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert (tmp_path / "killed" / CHECKPOINT).exists()
    assert start(tmp_path / "killed").wait(100) == 0
    assert same(load_file(tmp_path / "whole" / MODEL), load_file(tmp_path / "killed" / MODEL))


def test_best_epoch_is_kept_not_the_last(tmp_path):
    run(tmp_path / "a", config(epochs=10, learning_rate=2e-2, monitor="loss"))
    history = json.loads((tmp_path / "a/history.json").read_text())
    losses = [epoch["validation"]["loss"] for epoch in history]
    summary = json.loads((tmp_path / "a/summary.json").read_text())
    assert summary["best_epoch"] == 1 + int(np.argmin(losses))
    assert summary["metric"] == min(losses)


def test_stops_when_nothing_improves(tmp_path):
    run(tmp_path / "a", config(epochs=40, patience=2, learning_rate=1e-30, ema_decay=0))
    assert json.loads((tmp_path / "a/summary.json").read_text())["epochs"] == 3


def test_accumulated_batches_update_as_one_large_batch_does(tmp_path):
    plain = {"augment": AugmentConfig(**dict.fromkeys(AugmentConfig.model_fields, 0))}
    plain |= {"imbalance": "none", "epochs": 1, "clip_norm": None}
    options = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
    weights = []
    for number, (size, steps) in enumerate([(90, 1), (30, 3)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        seed_weights(7)
        model = build_model(
            ModelConfig(backbone="convnextv2_atto", size=SIZE, weights="none", options=options),
            2,
        )
        settings = config(**plain, batch_size=size, accumulation=steps)
        train(model, data(), settings, folder, device=CPU)
        weights.append(load_file(folder / MODEL))
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], atol=2e-4, rtol=1e-3)


def test_a_patient_on_both_sides_is_refused():
    with pytest.raises(PedfracError, match="toy: 1 patients are in training and validation"):
        TrainingData(
            "toy",
            ("normal", "fractured"),
            images("training", 9, 0, 1),
            images("validation", 9, 4, 2),
        )


def test_one_class_only_is_refused_by_name():
    few = images("validation", 9, 900, 2)
    few.labels[:] = 0
    with pytest.raises(PedfracError, match="validation images hold no image of fractured"):
        TrainingData("0-1.5y", ("normal", "fractured"), images("training", 9, 0, 1), few)


def test_unlearnable_numbers_end_in_an_error(tmp_path):
    with pytest.raises(PedfracError, match="no number any more"):
        run(tmp_path / "a", config(learning_rate=1e30, epochs=6, clip_norm=None))
