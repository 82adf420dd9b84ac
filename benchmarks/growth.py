"""Whether time grows with the images and memory does not: records, pack, an epoch, prediction.

Each step runs in a process of its own for each number of images, and is timed inside it, without
Python's own start; what it takes for a handful of images is its start-up and is taken off. Then
twice the images should take twice the time. Memory is the peak of what the process and its workers
hold for themselves (anonymous pages); pages of mapped files, which the system may take back at any
time, are told beside it. Images are phantoms at a tenth of their size and networks are tiny: what
could grow too fast is what is done for each image, not the arithmetic. Only the first IMAGES are
different ones: the others have the same pixels, but other names, patients and bytes.
Run: ``python benchmarks/growth.py --work FOLDER``, or one size at a time with ``--sizes 1000``; a
second run goes on where the first stopped, and prints all that was measured so far.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from repeated_images import LABELS, write_repeated

SIZES = (1000, 2000, 4000, 8000, 16000, 32000, 64000)
START_UP = 100  # images whose time is that of starting
IMAGES = 1000
STEPS = ("records", "pack", "epoch", "predict")
SIDE = 32
TINY: dict[str, Any] = {
    "backbone": "convnextv2_atto",
    "size": SIDE,
    "weights": "none",
    "options": {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="Folder for images and results")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        _measure(given.step, given.work)
        return
    results = given.work / "growth.jsonl"
    given.work.mkdir(parents=True, exist_ok=True)
    for size in (START_UP, *given.sizes):
        _run(given.work, size, given.rounds, results)
    _print(pd.read_json(results, lines=True))


def _run(work: Path, size: int, rounds: int, results: Path) -> None:
    """Measure each step of a size so often, less what is measured already."""
    done = (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )
    missing = rounds - sum(one["images"] == size and one["step"] == STEPS[-1] for one in done)
    if missing <= 0:
        return
    folder = work / str(size)
    if not (folder / "data" / "dataset.csv").exists():
        _write_images(work, folder / "data", size)
    for _ in range(missing):
        _clear(folder)
        for step in STEPS:
            if step == "epoch":
                _write_split(folder)
            command = [sys.executable, __file__, "--work", str(folder), "--step", step]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found = {"images": size, "step": step, **json.loads(told.splitlines()[-1])}
            with results.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(found, flush=True)
    shutil.rmtree(folder)


def _clear(folder: Path) -> None:
    """Remove what steps left, so that each does all of its work."""
    for made in folder.iterdir():
        if made.name != "data":
            shutil.rmtree(made) if made.is_dir() else made.unlink()


def _write_images(work: Path, data: Path, size: int) -> None:
    """Write so many images in the published layout, made of the first ones."""
    from pedfrac.config.phantoms import PhantomConfig
    from pedfrac.phantoms.dataset import write_phantoms

    first = work / "first"
    if not (first / "dataset.csv").exists():
        shutil.rmtree(first, ignore_errors=True)
        write_phantoms(first, PhantomConfig(images=IMAGES, scale=0.1))
    write_repeated(first, data, size)


# ---- one step in a process of its own -----------------------------------------------------------


def _measure(step: str, folder: Path) -> None:
    work: dict[str, Callable[[Path], Callable[[], object]]] = {
        "records": _records,
        "pack": _pack,
        "epoch": _epoch,
        "predict": _predict,
    }
    task = work[step](folder)
    with _watched() as memory:
        began, used = time.perf_counter(), _processor_seconds()
        task()
        found = {
            "seconds": time.perf_counter() - began,
            "processor": _processor_seconds() - used,
        }
    print(json.dumps(found | memory))


def _records(folder: Path) -> Callable[[], object]:
    from pedfrac.config.data import DataConfig
    from pedfrac.data.records import read_records, save_records

    config = DataConfig(root=str(folder / "data"))
    return lambda: save_records(read_records(config), folder / "records")


def _pack(folder: Path) -> Callable[[], object]:
    from pedfrac.config.data import Preparation
    from pedfrac.data.records import load_records
    from pedfrac.packs.build import build_pack

    preparation = Preparation(size=SIDE, markers="fill")
    (folder / "pack").mkdir()

    def pack() -> None:
        records = load_records(folder / "records")
        build_pack(folder / "pack", records.table, records.boxes, folder / "data", preparation)

    return pack


def _epoch(folder: Path) -> Callable[[], object]:
    """One epoch on four fifths of the patients, validated on the others."""
    import torch

    from pedfrac.config.training import ModelConfig, TrainingConfig
    from pedfrac.models.classifier import build_model
    from pedfrac.packs.pack import Pack
    from pedfrac.pipeline.training import Images, training_data
    from pedfrac.training.trainer import train

    model = build_model(ModelConfig(**TINY), 2)
    config = TrainingConfig(epochs=1, batch_size=32, warmup_epochs=0)
    (folder / "model").mkdir()

    def images(pack: Pack) -> Images:
        labels = pack.index["fracture_visible"].to_numpy().astype(np.int64)
        return Images("all", ("normal", "fractured"), labels, np.ones(len(labels), bool))

    def epoch() -> None:
        data = training_data(images, folder / "pack", folder / "split")
        train(model, data, config, folder / "model", device=torch.device("cpu"))

    return epoch


def _write_split(folder: Path) -> None:
    """Have a fifth of the patients validate."""
    from pedfrac.data.split import Split, save_split

    images = pd.read_csv(folder / "records" / "records.csv", usecols=["filestem", "patient_id"])
    part = np.where(images["patient_id"] % 5 == 0, "validation", "train")
    save_split(
        Split(images.assign(part=part, reason="", place=part, fold=-1)), {}, folder / "split"
    )


def _predict(folder: Path) -> Callable[[], object]:
    from predict_speed import write_bundle_of

    from pedfrac.config.serving import PredictionConfig
    from pedfrac.pipeline.prediction import predict_images

    network = TINY["backbone"], SIDE, TINY["options"]
    bundle = write_bundle_of(folder / "bundle", {"fracture": network, "age": network})
    data = folder / "data"
    config = PredictionConfig(
        images=(str(data / "images"),),
        bundle=str(bundle),
        output=str(folder / "scores.parquet"),
        ages=str(data / "dataset.csv"),
        labels=str(data / LABELS),
    )
    return lambda: predict_images(config)


@contextmanager
def _watched() -> Iterator[dict[str, float]]:
    """Yield the peak memory in MB, all processes together, complete once the block is left."""
    peak: dict[str, float] = {"anonymous": 0.0, "resident": 0.0}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for name, now in _memory().items():
                peak[name] = max(peak[name], now)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def _memory() -> dict[str, float]:
    found = {"anonymous": 0.0, "resident": 0.0}
    own = os.getpid()
    for number in (own, *_children(own)):
        try:
            lines = Path(f"/proc/{number}/status").read_text().splitlines()
        except OSError:
            continue  # it has just ended
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        for name, field in (("anonymous", "RssAnon"), ("resident", "VmRSS")):
            found[name] += int(fields.get(field, "0 kB").split()[0]) / 1024
    return found


def _children(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            own = [int(number) for number in task.read_text().split()]
        except OSError:
            continue
        found += own + [below for number in own for below in _children(number)]
    return found


def _processor_seconds() -> float:
    kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, kinds))


# ---- what is told -------------------------------------------------------------------------------


def _print(found: pd.DataFrame) -> None:
    print(f"\n{os.cpu_count()} cores ({platform.machine()})\n")
    middle = found.groupby(["step", "images"])[["seconds", "anonymous", "resident"]].median()
    print(
        "| step | images | seconds | of half the images | ms an image | own MB | of half | all MB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for step in STEPS:
        rows = middle.loc[step]
        start = rows.loc[START_UP, "seconds"]
        for images, row in rows.drop(START_UP).iterrows():
            more = row["seconds"] - start
            half = rows.loc[images // 2] if images // 2 in rows.index else None
            times, grown = "", ""
            if half is not None:
                times = f"× {more / (half['seconds'] - start):.2f}"
                grown = f"× {row['anonymous'] / half['anonymous']:.3f}"
            print(
                f"| {step} | {images} | {row['seconds']:.1f} | {times} | "
                f"{1000 * more / (images - START_UP):.2f} | {row['anonymous']:.0f} | {grown} | "
                f"{row['resident']:.0f} |"
            )
    print("\n| step | images | time, each doubling | own memory, each doubling | kB an image |")
    print("|---|---|---|---|---|")
    for step in STEPS:
        print(f"| {step} | {_fitted(middle.loc[step])} |")


def _fitted(rows: pd.DataFrame) -> str:
    """Return what a doubling does by a straight line through logarithms, but memory by its ends."""
    own = rows.drop(START_UP)
    doublings = np.log2(own.index.to_numpy(float))
    seconds = own["seconds"].to_numpy() - rows.loc[START_UP, "seconds"]
    time_slope = np.polyfit(doublings, np.log2(seconds), 1)[0]
    memory = own["anonymous"].to_numpy()
    more = (memory[-1] / memory[0]) ** (1 / (doublings[-1] - doublings[0]))
    each = 1024 * (memory[-1] - memory[0]) / (own.index[-1] - own.index[0])
    images = f"{own.index[0]}–{own.index[-1]}"
    return f"{images} | × {2**time_slope:.2f} | × {more:.3f} | {each:.1f}"


if __name__ == "__main__":
    main()
