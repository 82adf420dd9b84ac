"""How much faster networks answer in ONNX Runtime than in PyTorch, on a CPU with equal threads.

Networks have random weights, which does not change their speed. Both run in one process and take
turns, pair by pair; a pair's ratio is of the processor time that each took for the same images,
which other work on the machine disturbs less than the clock. Wall time's ratio stands beside it.
Run: ``python benchmarks/onnx_speed.py [--pairs 15] [--images 8] [--threads 1]``
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pedfrac.bundle.onnx_export import export_network, trace
from pedfrac.bundle.onnx_runtime import OnnxNetwork
from pedfrac.config.training import ModelConfig
from pedfrac.models.classifier import build_model
from pedfrac.training.trainer import seed_weights

NETWORKS = [
    ("convnextv2_atto", 128),
    ("convnextv2_tiny", 128),
    ("convnextv2_tiny", 384),
    ("swin_tiny_patch4_window7_224", 224),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", type=int, nargs="*", default=range(len(NETWORKS)))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("| network | side | images | weights | ratio, processor time | ratio, wall time |")
    print("|---|---|---|---|---|---|")
    for number in given.networks:
        compare(*NETWORKS[number], given.pairs, given.images)


@torch.inference_mode()
def compare(backbone: str, size: int, pairs: int, images: int) -> None:
    """Print images/s of ONNX Runtime over PyTorch's: median of the pairs, and the middle 80 %."""
    seed_weights(0)
    config = ModelConfig(backbone=backbone, size=size, weights="none")
    model = build_model(config, 2).eval()
    shown = torch.rand(images, 1, size, size)
    traced = trace(model, size)
    for int8 in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            export_network(model, traced, shown[:3], path, int8)
            network = OnnxNetwork(path, size, 2, False)
        for warm in (model, network):
            warm.answers(shown)
        ratios = np.array([pair(model.answers, network.answers, shown) for _ in range(pairs)])
        cells = " | ".join(spread(ratios[:, column]) for column in (0, 1))
        kind = "8 bits" if int8 else "float"
        print(f"| {backbone} | {size} | {images} | {kind} | {cells} |", flush=True)


def pair(torch_answers: Callable, onnx_answers: Callable, images: torch.Tensor) -> list[float]:
    """Return PyTorch's time over ONNX Runtime's: of the processor, and on the wall."""
    ours, theirs = timed(torch_answers, images), timed(onnx_answers, images)
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def timed(answers: Callable, images: torch.Tensor) -> tuple[float, float]:
    processor, wall = time.process_time(), time.perf_counter()
    answers(images)
    return time.process_time() - processor, time.perf_counter() - wall


def spread(ratios: np.ndarray) -> str:
    low, high = np.quantile(ratios, [0.1, 0.9])
    return f"{statistics.median(ratios):.2f} ({low:.2f}–{high:.2f})"


if __name__ == "__main__":
    main()
