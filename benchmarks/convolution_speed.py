"""How long torch's convolutions take on a CPU, forward and back, beside those by matrix products.

Shapes are those of ConvNeXt V2 atto at 128 px and of EfficientNet-lite0 at 96 px, batches of 32, on
one thread; seconds are the processor's, so that other work disturbs them less.
Run: ``python benchmarks/convolution_speed.py``
"""

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from pedfrac.compute.malloc import keep_freed_memory
from pedfrac.training.convolutions import by_matrix_products

# of channels in and out, side of the map, kernel, stride
POINTWISE = [(40, 160, 32), (160, 40, 32), (160, 640, 8), (640, 160, 8), (320, 1280, 4)]
DEPTHWISE = [(320, 4, 7, 1), (160, 8, 7, 1), (1152, 3, 5, 1), (672, 6, 5, 1), (1152, 3, 3, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    layers = [
        (f"1×1, {into} to {out} channels, map of {side}", nn.Conv2d(into, out, 1), into, side)
        for into, out, side in POINTWISE
    ] + [
        (
            f"{kernel}×{kernel} depthwise, {channels} channels, map of {side}",
            nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels),
            channels,
            side,
        )
        for channels, side, kernel, stride in DEPTHWISE
    ]
    print("| convolution, forward and back | torch's, ms | ours, ms | torch's ÷ ours |")
    print("|---|---|---|---|")
    for name, layer, channels, side in layers:
        maps = torch.randn(32, channels, side, side)
        torchs, ours = _seconds(layer, maps, given.rounds)
        ratio = np.median(torchs / ours)
        print(f"| {name} | {np.min(torchs):.1f} | {np.min(ours):.1f} | {ratio:.2f} |", flush=True)


def _seconds(layer: nn.Conv2d, maps: Tensor, rounds: int) -> np.ndarray:
    """Return milliseconds (2, rounds) of torch's layer and of ours, in turns."""
    maps = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
    ours = copy.deepcopy(layer)
    by_matrix_products(ours)
    works = [partial(_step, one, maps) for one in (layer, ours)]
    for work in works:
        work()
    return np.array([[_timed(work) for work in works] for _ in range(rounds)]).T


def _step(layer: nn.Module, maps: Tensor) -> None:
    layer(maps).sum().backward()


def _timed(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return 1e3 * (time.process_time() - began)


if __name__ == "__main__":
    main()
