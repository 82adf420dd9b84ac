"""What feed and augmentation cost a training, and what each trick of the step gains.

The bound is the same step on a batch that is already on the device. Every variant takes its turn
in each round, so that other work on the machine slows all alike; metrics are ratios within a round:
median and middle 80 %. Images are random bytes, which changes no speed. ``--profile`` shows where a
step's time goes instead.
Run: ``python benchmarks/training_speed.py`` on a CPU, and on a GPU
``python benchmarks/training_speed.py --backbone convnextv2_tiny --size 384 --images 4096
--compile``
"""

import argparse
import ctypes
import os
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from turns import machine, spread, take_turns

from pedfrac.compute.devices import resolve_device
from pedfrac.compute.malloc import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory
from pedfrac.compute.precision import multiplies_bf16
from pedfrac.config.runtime import RuntimeConfig
from pedfrac.config.training import ModelConfig, TrainingConfig
from pedfrac.models.classifier import build_model
from pedfrac.training import learner
from pedfrac.training.dataset import ImageSet, TrainingData
from pedfrac.training.distributed import ALONE
from pedfrac.training.loader import Feed
from pedfrac.training.trainer import _Run, seed_weights


@dataclass(frozen=True)
class Variant:
    """One way to train: in what it differs from the default."""

    name: str
    fixed_batch: bool = False
    precision: str = "auto"
    channels_last: bool = True
    compile: str = "off"
    graphs: bool = False
    keep_memory: bool = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="convnextv2_atto")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="Try torch.compile, too")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    device = resolve_device(given.device)
    if device.type == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)
    print(f"{machine(device)}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as folder:
        if given.profile:
            _profile(_epoch_of(Variant("default"), given, device, Path(folder)), device)
            return
        variants = _variants(given.compile, device)
        epochs = {
            one.name: _epoch_of(one, given, device, Path(folder) / one.name) for one in variants
        }
        for epoch in epochs.values():
            epoch()
        seconds = take_turns(epochs, given.rounds)
    _print(seconds, given.images)


def _variants(compiled: bool, device: torch.device) -> list[Variant]:
    gpu = device.type == "cuda"
    others = ["fp32", "tf32"] if gpu else ["bf16"] * multiplies_bf16(device)
    found = [
        Variant("default"),
        Variant("default, fixed batch", fixed_batch=True),
        Variant("without channels_last", channels_last=False),
        *(Variant(other, precision=other) for other in others),
    ]
    if not gpu:
        found.append(Variant("freed memory given back", keep_memory=False))
    if not compiled:
        return found
    found += [
        Variant("compiled", compile="on"),
        Variant("compiled, fixed batch", compile="on", fixed_batch=True),
        *(Variant(f"compiled, {other}", compile="on", precision=other) for other in others),
    ]
    if gpu:
        return [*found, Variant("compiled, CUDA graphs", compile="on", graphs=True)]
    found += [
        Variant(f"compiled, {other}, fixed batch", True, other, compile="on") for other in others
    ]
    return found


def _epoch_of(
    variant: Variant, given: argparse.Namespace, device: torch.device, folder: Path
) -> Callable[[], None]:
    """Return what trains one epoch after another, without validation."""
    folder.mkdir(exist_ok=True)
    config = TrainingConfig(batch_size=given.batch, precision=variant.precision)
    seed_weights(0)
    model = build_model(ModelConfig(backbone=given.backbone, size=given.size, weights="none"), 2)
    runtime = RuntimeConfig(compile=variant.compile)
    with memory_layout(variant.channels_last), _graphs(variant.graphs):
        run = _Run(model, _data(given.images, given.size), config, folder, device, runtime, ALONE)
    numbers = count(1)
    return lambda: _epoch(run, variant, device, next(numbers))


def _epoch(run: _Run, variant: Variant, device: torch.device, number: int) -> None:
    _memory(variant.keep_memory)
    with memory_layout(variant.channels_last), _fixed(run.data, device, variant.fixed_batch):
        run._fit(number)
    if device.type == "cuda":
        torch.cuda.synchronize()


@contextmanager
def _fixed(data: TrainingData, device: torch.device, fixed: bool):
    """Let every batch be the same one, already on the device and not augmented."""
    if not fixed:
        yield
        return
    images = torch.from_numpy(data.train.images).to(device)

    def batches(feed: Feed, places):
        return (images[: len(own)] for own in places)

    with (
        mock.patch.object(Feed, "batches", batches),
        mock.patch.object(learner, "augment", lambda images, *_: images),
    ):
        yield


@contextmanager
def memory_layout(channels_last: bool):
    """Let tensors lie as they do by default, where channels_last is off."""
    kept = torch.channels_last if channels_last else torch.contiguous_format
    with mock.patch.object(torch, "channels_last", kept):
        yield


@contextmanager
def _graphs(wanted: bool):
    """Let what is compiled be replayed as CUDA graphs."""
    if not wanted:
        yield
        return
    with mock.patch.object(torch, "compile", partial(torch.compile, mode="reduce-overhead")):
        yield


def _memory(keep: bool) -> None:
    """Let freed memory stay with the process, or go back as glibc has it by default."""
    if keep:
        keep_freed_memory()
    elif hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # to which the default grows by itself
        libc.mallopt(M_TRIM_THRESHOLD, 64 << 20)


def _data(count: int, size: int) -> TrainingData:
    def images(name: str, count: int, first: int) -> ImageSet:
        images = np.random.default_rng(first).integers(0, 256, (count, size, size), np.uint8)
        return ImageSet(
            name=name,
            images=images,
            rows=np.arange(count),
            labels=(np.arange(count) % 2).astype(np.int64),
            filestems=[str(number) for number in range(count)],
            patients=first + np.arange(count),
        )

    return TrainingData(
        "images", ("normal", "fractured"), images("training", count, 0), images("rest", 2, count)
    )


def _print(seconds: dict[str, np.ndarray], images: int) -> None:
    print("| variant | images/s | images/s over default's |\n|---|---|---|")
    for name, each in seconds.items():
        ratio = spread(seconds["default"] / each)
        print(f"| {name} | {images / np.median(each):.0f} | {ratio} |")
    for name in seconds:
        if f"{name}, fixed batch" in seconds:
            ratio = spread(seconds[f"{name}, fixed batch"] / seconds[name])
            print(f"\n{name}: images/s with feed and augmentation over a fixed batch's: {ratio}")


def _profile(epoch: Callable[[], None], device: torch.device) -> None:
    """Print the operators that take most of an epoch, in percent."""
    epoch()
    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]
    with profile(activities=activities) as seen:
        epoch()
    rows = [
        (row.self_device_time_total if gpu else row.self_cpu_time_total, row.key)
        for row in seen.key_averages()
    ]
    whole = sum(time for time, _ in rows)
    print("| operator | share of the time |\n|---|---|")
    for spent, name in sorted(rows, reverse=True)[:14]:
        print(f"| `{name}` | {100 * spent / whole:.1f} % |")


if __name__ == "__main__":
    main()
