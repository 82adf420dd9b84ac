"""How fast ``pedfrac predict`` is, over what its decoder and its networks alone would allow.

Three things take their turns in each round, on the same images and with all cores: ``predict`` as
the command does it (images found, read, scored, written to a table), the decoder (read, decoded and
prepared for both kinds of network) and the networks (age classifier, generalist and one specialist
an image, in full batches that are in memory). Where images are decoded and scored by the same cores
nothing can be faster than the harmonic bound, 1 / (1 / decoder + 1 / networks). Weights are random.
``--profile`` shows where the time of ``predict`` goes instead.
Run: ``python benchmarks/predict_speed.py`` (ConvNeXt V2 tiny at 384 px, Swin-T at 224 px),
``python benchmarks/predict_speed.py --demo --images 1536`` (networks as small as the
demonstration's), and on a GPU ``python benchmarks/predict_speed.py --images 4096 --batch 64``.
"""

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from turns import machine, spread, take_turns

from pedfrac.age_groups import AgeGroups
from pedfrac.bundle.bundle import Bundle, BundleInfo, bundle_digest, weight_names, write_bundle
from pedfrac.compute.devices import resolve_device
from pedfrac.compute.malloc import keep_freed_memory
from pedfrac.config.data import CohortConfig
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.imaging.decoding import decode
from pedfrac.imaging.letterbox import letterbox
from pedfrac.imaging.markers import remove_markers
from pedfrac.models.classifier import build_model
from pedfrac.models.heads import make_head
from pedfrac.models.inputs import to_images
from pedfrac.phantoms.dataset import LABELS, write_phantoms
from pedfrac.serving.images import Image, find_images, read_ages, text_boxes
from pedfrac.serving.observer import Observer
from pedfrac.serving.prediction import predict_to
from pedfrac.training.trainer import seed_weights

LARGE = {"fracture": ("convnextv2_tiny", 384, {}), "age": ("swin_tiny_patch4_window7_224", 224, {})}
SMALL = {
    "fracture": ("convnextv2_atto", 128, {"depths": [1, 1, 3, 1], "dims": [24, 48, 96, 192]}),
    "age": (
        "swin_tiny_patch4_window7_224",
        96,
        {"embed_dim": 32, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 3},
    ),
}
PHANTOMS = 192  # different ones; more images are the same under other names
STAGES = {
    "images found": ("images.py", "find_images"),
    "keys": ("prediction.py", "_keys"),
    "waiting for images": ("image_batches.py", "result"),
    "networks": ("bundle.py", "_answers"),
    "rows kept": ("score_files.py", "add"),
    "whole table": ("score_files.py", "finish"),
    "parts read again": ("score_files.py", "rows"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", action="store_true", help="Networks of the demonstration's size")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="Size of images over real ones'")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    device = resolve_device(given.device)
    keep_freed_memory()  # as the command does; it serves the bounds, too
    print(f"{machine(device)}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as folder:
        data = _images(Path(folder) / "images", given.images, given.scale)
        bundle = write_bundle_of(Path(folder) / "bundle", SMALL if given.demo else LARGE)
        began = time.perf_counter()
        arms = _Arms(data, bundle, device, given.batch)
        print(f"bundle loaded in {time.perf_counter() - began:.1f} s\n")
        arms.predict(given.batch)  # what is imported and allocated once is not counted
        if given.profile:
            _profile(arms.predict)
            return
        turns = {name: getattr(arms, name) for name in ("predict", "decoder", "networks")}
        seconds = take_turns(turns, given.rounds)
    _print(seconds, given.images)


class _Arms:
    """What is timed, each over all images once."""

    def __init__(self, data: Path, bundle: Path, device: torch.device, batch: int):
        self.data, self.folder, self.batch = data, bundle, batch
        self.bundle, self.device = Bundle.load(bundle, device), device
        found = find_images([data])
        prepared = [self._prepare(image) for image in found[:PHANTOMS]]
        kinds = [np.stack(one) for one in zip(*prepared, strict=True)]
        self.ready = [np.resize(one, (len(found), *one.shape[1:])) for one in kinds]
        self.turn = 0

    def predict(self, most: int | None = None) -> None:
        self.turn += 1
        ages = read_ages(self.data / "dataset.csv")
        images = find_images([self.data], ages, self.data / LABELS)[:most]
        table = self.data.parent / f"scores{self.turn}.parquet"
        digest = bundle_digest(self.folder)
        options: Any = {"batch_size": self.batch, "observer": Observer(None)}
        assert not predict_to(table, self.bundle, digest, images, **options)[""]

    def decoder(self) -> None:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        images = find_images([self.data], labels=self.data / LABELS)
        with ThreadPoolExecutor(_cores()) as pool:
            for done in [pool.submit(self._prepare, image) for image in images]:
                done.result()
        cv2.setNumThreads(threads)

    def networks(self) -> None:
        fracture, age = self.ready
        for name, images in (("age", age), ("generalist", fracture), ("specialist", fracture)):
            network = next(one for own, one in self.bundle.networks.items() if own.startswith(name))
            for start in range(0, len(images), self.batch):
                self._answer(network, images[start : start + self.batch])

    @torch.inference_mode()
    def _answer(self, network: Any, images: np.ndarray) -> None:
        network.answers(to_images(images, self.device))[0].cpu()

    def _prepare(self, image: Image) -> tuple[np.ndarray, np.ndarray]:
        info, grey = self.bundle.info, decode(image.path)
        boxes = text_boxes(image.labels, grey.shape)
        kinds = (info.fracture.preparation, info.age.preparation)
        cleaned = remove_markers(grey, boxes, "fill")
        fracture, age = (letterbox(cleaned, kind.size)[0] for kind in kinds)
        return fracture, age


def _images(folder: Path, count: int, scale: float) -> Path:
    """Write images, table and labels; images beyond PHANTOMS are links to the first ones."""
    write_phantoms(folder, PhantomConfig(images=min(count, PHANTOMS), scale=scale))
    header, *lines = (folder / "dataset.csv").read_text("utf-8-sig").splitlines()
    images = {path.stem: path for path in folder.glob("images*/*.png")}
    written = [header]
    for number in range(count):
        stem, rest = lines[number % len(lines)].split(",", 1)
        name = stem if number < len(lines) else f"{stem}-{number}"
        if name != stem:
            os.link(images[stem], images[stem].with_stem(name))
            os.link(folder / LABELS / f"{stem}.txt", folder / LABELS / f"{name}.txt")
        written.append(f"{name},{rest}")
    (folder / "dataset.csv").write_text("\n".join(written) + "\n")
    return folder


def write_bundle_of(folder: Path, networks: dict[str, tuple[str, int, dict]]) -> Path:
    """Write a bundle of networks with random weights in which specialists score."""
    folder.mkdir()
    ages, plain = AgeGroups(CohortConfig().age_bounds), {"method": "none"}
    count = len(ages)
    scorer = {
        "choices": ("specialist",) * count,
        "calibrators": {"pooled": plain, "groups": (plain,) * count, "weights": (0,) * count},
        "pooled_threshold": 0.5,
        **dict.fromkeys(("thresholds", "study_thresholds", "low", "high"), (0.5,) * count),
        "threshold_weights": (0,) * count,
    }
    info = BundleInfo.model_validate(
        {
            "age_bounds": ages.bounds,
            "scorers": dict.fromkeys(("bundle", "specialist", "generalist"), scorer),
            **{name: _network(*one) for name, one in networks.items()},
        }
    )
    weights = {}
    for number, name in enumerate(weight_names(ages)):
        seed_weights(number)
        config = (info.age if name == "age" else info.fracture).model
        model = build_model(config, make_head(info.age_head, ages) if name == "age" else 2)
        weights[name] = folder / f"{name}.weights"
        save_file(model.state_dict(), weights[name])
    write_bundle(folder, info, weights)
    return folder


def _network(backbone: str, size: int, options: dict) -> dict[str, Any]:
    model = {"backbone": backbone, "size": size, "options": options, "weights": "none"}
    return {"model": model, "preparation": {"size": size, "markers": "fill"}}


def _print(seconds: dict[str, np.ndarray], images: int) -> None:
    print("| what | images/s |\n|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {spread(images / each, 1)} |")
    predict, decoder, networks = seconds.values()
    print(f"\npredict / min(decoder, networks): {spread(np.maximum(decoder, networks) / predict)}")
    print(f"predict / harmonic bound: {spread((decoder + networks) / predict)}")


def _profile(arm: Callable[[], None]) -> None:
    """Print the share of each stage in the time of the process's main thread."""
    seen = cProfile.Profile()
    seen.runcall(arm)
    stats: Any = pstats.Stats(seen)
    whole = stats.total_tt
    print("| stage | share of the main thread's time |\n|---|---|")
    rest = whole
    for stage, (file, name) in STAGES.items():
        spent = sum(
            row[3]
            for (path, _, function), row in stats.stats.items()
            if function == name and Path(path).name == file
        )
        rest -= spent
        print(f"| {stage} | {100 * spent / whole:.1f} % |")
    print(f"| all else | {100 * rest / whole:.1f} % |")
    stats.sort_stats("tottime").print_stats(25)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
