"""Ours against timm's train.py, fastai, Ultralytics and AutoTimm: epoch time, and AUROC for time.

Every system trains in an environment of its own, by its own documented ways; the adapters are in
``of_*.py``. Images are the same for all: ours come as published, the peers' as 8-bit images of the
same size in folders.

``epoch``: seconds of the training part of an epoch, loading and augmentation included, validation
left out. All systems run at once and take turns of one epoch; who is not on is stopped. The first
two epochs of each do not count, which compile and warm up. Images are phantoms of the size of real
ones, or leg images.
``auroc``: trains on four folds of leg patients (one of them chooses the epoch) for as many epochs
as fit into equal wall time, from process start to the last epoch, ours with records and packing.
The peers' last epoch need only begin within it, so that they get at least as long as ours;
``score`` reads all that was trained and prints areas and paired differences.

Run::

    python benchmarks/peers/compare.py install --environments FOLDER     # needs uv; 6 GB once
    python benchmarks/peers/compare.py epoch --environments FOLDER --timm-script train.py
    python benchmarks/peers/compare.py auroc --environments FOLDER --timm-script train.py
    python benchmarks/peers/compare.py score

train.py is the file of that name in the repository huggingface/pytorch-image-models: it is in no
package. With ``--device cuda`` the same runs on a GPU (unmeasured so far).
"""

import json
import math
import os
import platform
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from adapter import Job
from entries import OURS, PACKAGES, Entry, Training
from entries import install as install_peer
from images import ImageFolders, cut, write_folders, write_phantoms

sys.path.insert(0, str(Path(__file__).parents[1]))

from leg_transfer import DATA, HeldOutFigures, write_imagenet_weights, write_layout

from pedfrac import pipeline
from pedfrac.compute.precision import multiplies_bf16
from pedfrac.config.loading import load_config
from pedfrac.data.records import load_records
from pedfrac.data.split import load_split
from pedfrac.errors import PedfracError
from pedfrac.statistics.words import interval_in_words

app = typer.Typer(add_completion=False, help=__doc__)


def fastest(device: str) -> list[str]:
    """Return the fastest settings of each, found by ``epoch`` with an entry for each one tried.

    In bf16 where the device multiplies it: other processors take ten times as long in it.
    """
    precision = "bf16" if multiplies_bf16(torch.device(device)) else "fp32"
    return [
        f"pedfrac:runtime.compile=on,fracture.training.precision={precision}",
        f"timm:workers=2,compile=on,precision={precision}",
        "fastai:workers=2,channels_last=on",
        "ultralytics",
        f"autotimm:workers=2,backend=albumentations,precision={precision}",
    ]


# For short trainings: without compiling, which takes longer than it saves; and bf16 does not pay
# for a network of depthwise convolutions on a CPU.
STRONGEST = [
    "pedfrac:fracture.training.precision=fp32",
    "timm:workers=2",
    "fastai:workers=2,balance=on",
    "ultralytics",
    "autotimm:compile=off,workers=2,backend=albumentations,balance=on",
]

Environments = Annotated[Path, typer.Option(help="Folder of the peers' environments")]
Script = Annotated[Path | None, typer.Option(help="timm's train.py")]
Work = Annotated[Path, typer.Option(help="Folder to keep images, weights and scores in")]
Entries = Annotated[
    list[str] | None, typer.Option("--entry", help="NAME or NAME:option=value,…; repeatable")
]
Legs = Annotated[Path, typer.Option("--data", help="Folder of the FracAtlas legs")]


@app.command()
def install(
    environments: Environments,
    only: Annotated[list[str] | None, typer.Option(help="Only these peers")] = None,
) -> None:
    """Make the peers' environments, with the torch that is here."""
    for name in only or PACKAGES:
        install_peer(name, environments, torch.__version__.partition("+")[0])


# ---- seconds of an epoch ----------------------------------------------------------------------


@app.command()
def epoch(
    environments: Environments,
    timm_script: Script = None,
    work: Work = Path("peers"),
    entry: Entries = None,
    kind: Annotated[str, typer.Option("--set", help="phantoms or legs")] = "phantoms",
    images: Annotated[int, typer.Option(help="Training images, a multiple of the batch")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="Epochs of each that count")] = 5,
    warmup: Annotated[int, typer.Option(min=1, help="Epochs of each before them")] = 2,
    backbone: str = "convnextv2_atto",
    size: int = 128,
    batch: int = 32,
    device: str = "cpu",
    data: Legs = DATA,
) -> None:
    """Measure epochs in turns, and print seconds and ratios to ours."""
    if images % batch:
        raise PedfracError(f"--images {images} must be a multiple of --batch {batch}")
    folders = _epoch_images(work.resolve(), kind, images, data)
    entries = [Entry.parse(text) for text in entry or fastest(device)]
    job = Job(
        images=str(folders.images),
        layout=str(folders.layout),
        split=str(folders.split),
        work="",
        backbone=backbone,
        size=size,
        batch=batch,
        epochs=1000,  # never reached
        seed=0,
        device=device,
        began=0,
        script=timm_script and str(timm_script.resolve()),
        turns=True,
    )
    print(f"{_machine(device)}; {kind}, {images} images, {backbone}, {size} px, batch {batch}\n")
    with ExitStack() as stack:
        running = [
            stack.enter_context(_running(one, job, work.resolve() / "epoch", environments, warmup))
            for one in entries
        ]
        table = ""
        try:
            for seconds in _take_turns(running, rounds):
                table = epoch_table(seconds, images, running[0].pack_seconds)
        finally:
            print(table)  # of the rounds so far, where it is ended early


def _epoch_images(work: Path, kind: str, images: int, data: Path) -> ImageFolders:
    layout, rest = work / f"{kind}-{images}", 48
    if kind == "phantoms":
        write_phantoms(layout, images + 3 * rest)
    else:
        write_layout(data, layout)
    return cut(layout, work / f"{kind}-{images}-cut", images, rest)


@contextmanager
def _running(
    entry: Entry, job: Job, work: Path, environments: Path, warmup: int
) -> Iterator[Training]:
    """Start a training and let it do the epochs that warm it up; end it afterwards."""
    folder = work / entry.folder
    shutil.rmtree(folder, ignore_errors=True)  # else ours would go on from there
    with Training(entry, job.moved(folder), environments) as training:
        seconds = [f"{training.turn(first=number == 0):.1f}" for number in range(warmup)]
        print(f"{entry}: the first epochs {', '.join(seconds)} s", file=sys.stderr)
        yield training


def _take_turns(running: list[Training], rounds: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the seconds of all rounds so far after each."""
    seconds: dict[str, list[float]] = {str(one.entry): [] for one in running}
    for number in range(rounds):
        # backwards every other time, so that none always follows the same other
        for one in running[:: (-1) ** number]:
            seconds[str(one.entry)].append(one.turn(first=False))
        yield {name: np.array(each) for name, each in seconds.items()}


def epoch_table(seconds: dict[str, np.ndarray], images: int, packing: float = 0) -> str:
    """Return seconds of each entry and their ratios to the first's, round by round, as Markdown.

    ``packing``: seconds that the first, if it is ours, took once before its epochs.
    """
    ours = next(iter(seconds))
    lines = ["| system | epoch, s | images/s | its time over the first's |", "|---|---|---|---|"]
    for name, each in seconds.items():
        speed = images / np.median(each)
        ratio = _spread(each / seconds[ours], 2)
        lines.append(f"| {name} | {_spread(each, 2)} | {speed:.0f} | {ratio} |")
    peers = {name: each for name, each in seconds.items() if not name.startswith(OURS)}
    if peers and ours.startswith(OURS):
        best = min(peers, key=lambda name: np.median(peers[name]))
        ratio = _spread(peers[best] / seconds[ours], 2)
        lines += ["", f"fastest peer, {best}, over ours: {ratio} (goal: 1.5)"]
        share = packing / np.median(seconds[ours])
        lines += [f"ours packs once: {packing:.1f} s, {share:.1f} epochs"]
    return "\n".join(lines)


def _spread(values: np.ndarray, digits: int) -> str:
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def _machine(device: str) -> str:
    name = torch.cuda.get_device_name(device) if device != "cpu" else platform.machine()
    return f"{os.cpu_count()} cores, {name}, torch {torch.__version__}"


# ---- AUROC for equal wall time ----------------------------------------------------------------

BACKBONE = "tf_efficientnet_lite0"
FOLDS = 5


@app.command()
def auroc(
    environments: Environments,
    timm_script: Script = None,
    work: Work = Path("peers"),
    entry: Entries = None,
    fold: Annotated[list[int] | None, typer.Option(help="Only these folds, each a seed")] = None,
    budget: Annotated[float, typer.Option(help="Seconds of each training")] = 60,
    size: int = 96,
    batch: int = 32,
    device: str = "cpu",
    data: Legs = DATA,
    calibrate: Annotated[bool, typer.Option(help="Only find how many epochs fit")] = False,
) -> None:
    """Train each entry on each fold for equal wall time; what is trained already stays."""
    work = work.resolve()
    weights = work / "imagenet.safetensors"
    folds = _leg_folds(work, data)
    if not weights.exists():
        write_imagenet_weights(weights)
    for text in entry or STRONGEST:
        one = Entry.parse(text)
        job = Job(
            images="",
            layout="",
            split="",
            work=str(work / "auroc" / one.folder),
            backbone=BACKBONE,
            size=size,
            batch=batch,
            epochs=3,
            seed=0,
            device=device,
            began=0,
            weights=str(weights),
            script=timm_script and str(timm_script.resolve()),
        )
        epochs = _epochs_within(one, job.on(folds[0]), budget, environments)
        for number in [] if calibrate else fold or range(FOLDS):
            _train(one, job.on(folds[number]).trained(number, epochs), environments)


def _leg_folds(work: Path, data: Path) -> list[ImageFolders]:
    """Return the leg images, once for each fold that is held out while the next one validates."""
    layout, kept = work / "legs", work / "legs.csv"
    if not kept.exists():
        write_layout(data, layout)
        settings = [f"data.root={layout}", f"artifacts={work / 'legs-artifacts'}"]
        rules = ("cohort.age_bounds=0,19", "split.test_per_year=1", f"split.folds={FOLDS}")
        config = load_config(None, [*settings, *rules, "split.fold=0"])
        store, records = pipeline.store_of(config), pipeline.read_records(config)
        cohort = pipeline.select_cohort(config, records)
        dealt = load_split(store.get(pipeline.split_patients(config, cohort)).path).table
        used = dealt.loc[dealt["fold"] >= 0, ["filestem", "fold"]]
        used.merge(load_records(store.get(records).path).table, on="filestem").to_csv(
            kept, index=False
        )
    table = pd.read_csv(kept)
    found = []
    for number in range(FOLDS):
        parts = {number: "test", (number + 1) % FOLDS: "valid"}
        split = table["fold"].map(parts).fillna("train")
        folder = work / f"legs-fold-{number}"
        found.append(write_folders(layout, folder, table.assign(split=split), square=True))
    return found


def _epochs_within(entry: Entry, job: Job, budget: float, environments: Path) -> int:
    """Return how many epochs fit into a budget of seconds, by a training of three."""
    file = Path(job.work) / "calibration.json"
    if not file.exists():
        with Training(entry, job.moved(Path(job.work) / "calibration"), environments) as training:
            told = training.finish()
        ends = [one["at"] for one in told if "at" in one]
        each = ends[-1] - ends[-2]
        start = _seconds(told) - each * len(ends)
        file.write_text(json.dumps({"start": start, "epoch": each}))
    cost = json.loads(file.read_text())
    exact = (budget - cost["start"]) / cost["epoch"]
    # in doubt for the peers: theirs need only begin within the budget, ours must end there
    fitting = math.floor(exact) if entry.name == OURS else math.ceil(exact)
    print(f"{entry}: {cost['start']:.1f} s + {cost['epoch']:.1f} s an epoch: {fitting} epochs")
    if fitting < 2:
        raise PedfracError(f"{entry}: {budget} s are too few for two epochs")
    return fitting


def _train(entry: Entry, job: Job, environments: Path) -> None:
    """Train once and keep scores and seconds, unless they are there."""
    folder = Path(job.work)
    if (folder / "run.json").exists():
        return
    with Training(entry, job, environments) as training:
        told = training.finish()
    seconds = _seconds(told)
    facts = {
        "entry": str(entry),
        "fold": job.seed,
        "epochs": job.epochs,
        "seconds": seconds,
        "processor": next(one["processor"] for one in told if "processor" in one),
    }
    (folder / "run.json").write_text(json.dumps(facts))
    print(f"{entry}, fold {job.seed}: {job.epochs} epochs in {seconds:.1f} s")


def _seconds(told: list[dict[str, Any]]) -> float:
    """Return the seconds from the start of a process to the end of its training."""
    return next(one["trained"] for one in told if "trained" in one)


@app.command()
def score(work: Work = Path("peers"), entry: Entries = None, resamples: int = 1000) -> None:
    """Print the areas of all that was trained, and the differences of ours to each peer."""
    wanted = [Entry.parse(text).folder for text in entry] if entry else ["*"]
    runs = [
        json.loads(file.read_text()) | {"folder": file.parent}
        for name in wanted
        for file in sorted(work.glob(f"auroc/{name}/fold-*/run.json"))
    ]
    if not runs:
        raise PedfracError(f"{work}: nothing is trained yet; run auroc first")
    scores = pd.concat(
        pd.read_csv(run["folder"] / "scores.csv").assign(network=run["entry"], fold=run["fold"])
        for run in runs
    )
    images = pd.read_csv(work / "legs.csv")
    print(area_table(images, scores, pd.DataFrame(runs), resamples))


def area_table(
    images: pd.DataFrame, scores: pd.DataFrame, runs: pd.DataFrame, resamples: int
) -> str:
    """Return areas and paired differences as Markdown, of the folds that all entries have.

    ``images`` (filestem, patient_id, fold, fracture_visible), ``scores`` (filestem, score, network,
    fold), ``runs`` (entry, fold, epochs, seconds). Each fold is of a seed of its own.
    """
    every = set.intersection(*(set(own["fold"]) for _, own in scores.groupby("network")))
    images = images[images["fold"].isin(every)]
    scores = scores[scores["fold"].isin(every)].assign(seed=0)
    metrics = HeldOutFigures(images, scores, resamples)
    ours = [name for name in scores["network"].unique() if name.startswith(OURS)]
    lines = [
        f"{len(images)} held-out images of {images['patient_id'].nunique()} patients, "
        f"{images['fracture_visible'].sum()} fractured; {len(every)} folds, each of its own seed\n",
        "| system | epochs | seconds | AUROC (95 %) | each fold | ours minus it (95 %) |",
        "|---|---|---|---|---|---|",
    ]
    for name, own in runs[runs["fold"].isin(every)].groupby("entry"):
        folds = ", ".join(f"{area:.2f}" for area in metrics.of_folds(name))
        area = interval_in_words(metrics.area(name))
        gain = interval_in_words(metrics.difference(ours[0], name)) if name not in ours[:1] else ""
        seconds = f"{own['seconds'].median():.0f} (≤ {own['seconds'].max():.0f})"
        lines.append(f"| {name} | {own['epochs'].max()} | {seconds} | {area} | {folds} | {gain} |")
    return "\n".join(lines)


if __name__ == "__main__":
    # an end from outside must end the trainings too, which are groups of processes of their own
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    try:
        app()
    except PedfracError as error:
        sys.exit(str(error))
