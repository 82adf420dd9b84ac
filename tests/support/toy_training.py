"""A training so small that a test can run it: noise with bright bars, and a tiny network."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from pedfrac.config.training import AugmentConfig, ModelConfig, TrainingConfig
from pedfrac.models.classifier import build_model
from pedfrac.training.checkpoint import MODEL
from pedfrac.training.dataset import ImageSet, TrainingData
from pedfrac.training.trainer import seed_weights, train

SIZE = 32
CPU = torch.device("cpu")
GENTLE = AugmentConfig(rotation=5, shift=0.02, scale=0.02, erasing=0, gamma=0.05, contrast=0.05)


def images(name: str, count: int, first_patient: int, seed: int) -> ImageSet:
    """Noise; fractured images have a bright bar at a random height."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 90, (count, SIZE, SIZE), dtype=np.uint8)
    labels = (np.arange(count) % 3 == 0).astype(np.int64)
    for k in np.flatnonzero(labels):
        row = rng.integers(4, SIZE - 6)
        images[k, row : row + 3, 6:-6] += 120
    return ImageSet(
        name=name,
        images=images,
        rows=np.arange(count),
        labels=labels,
        filestems=[f"{name}{k}" for k in range(count)],
        patients=first_patient + np.arange(count) // 2,
    )


def data() -> TrainingData:
    return TrainingData(
        "toy",
        ("normal", "fractured"),
        images("training", 90, 0, 1),
        images("validation", 41, 900, 2),
    )


def network(backbone: str = "convnextv2_atto"):
    options = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32], "drop_path_rate": 0.2}
    seed_weights(7)
    return build_model(
        ModelConfig(backbone=backbone, size=SIZE, weights="none", options=options), 2
    )


def config(**changes) -> TrainingConfig:
    fields = {"epochs": 6, "batch_size": 16, "learning_rate": 3e-3, "warmup_epochs": 1}
    # in fp32, so that what is done in another order differs by little
    fields |= {"augment": GENTLE, "ema_decay": 0.8, "precision": "fp32"}
    return TrainingConfig(**(fields | changes))


def run(folder: Path, settings: TrainingConfig, on_epoch=lambda epoch: None):
    folder.mkdir(exist_ok=True)
    train(network(), data(), settings, folder, device=CPU, on_epoch=on_epoch)
    return load_file(folder / MODEL)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Stop(Exception):
    pass


def stop_after(epoch: int):
    def on_epoch(metrics):
        if metrics["epoch"] == epoch:
            raise Stop

    return on_epoch
