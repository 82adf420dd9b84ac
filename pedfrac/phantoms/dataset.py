"""A synthetic data set of children's wrist images in the published layout of GRAZPEDWRI-DX.

For tests, demonstrations and timings. A metric reached on phantoms says nothing about patients.
"""

import csv
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pedfrac.age_groups import AgeGroups
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.errors import PedfracError
from pedfrac.phantoms.image import Image, ImageSpec, render
from pedfrac.phantoms.overlays import TEXT
from pedfrac.phantoms.plane import Box
from pedfrac.phantoms.shapes import FRONTAL, LATERAL, OBLIQUE, Fracture, Lesion, Subject

logger = logging.getLogger(__name__)
COLUMNS = (
    "filestem", "patient_id", "study_number", "timehash", "gender", "age", "laterality",
    "projection", "initial_exam", "ao_classification", "cast", "diagnosis_uncertain",
    "osteopenia", "fracture_visible", "metal", "pixel_spacing", "device_manufacturer",
)  # fmt: skip
LABELS = "folder_structure/yolov5/labels"
FAULTS = (
    "truncated", "unreadable", "missing", "duplicate", "age", "class", "box", "fracture-flag",
    "filename",
)  # fmt: skip
LESION_AGE = 10.0  # years; from here on the lesions' meaning is turned round
_GROUPS = AgeGroups((0, 1.5, 5, 10, 15, 19))
_SHARE = np.array([0.006, 0.057, 0.307, 0.491, 0.139])  # of images, per age group
_FRACTURED = np.array([0.72, 0.71, 0.81, 0.635, 0.436])  # of a group's images

# Cheap run-length coding: random noise leaves little for a slower one to save.
_PNG = (
    cv2.IMWRITE_PNG_COMPRESSION, 1,
    cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB,
)  # fmt: skip


@dataclass(frozen=True)
class PlantedFault:
    """A fault planted in the dataset: which image, and which kind (see FAULTS)."""

    stem: str
    kind: str


@dataclass(frozen=True)
class Row:
    """One line of the table with the image it stands for; flags as booleans, age in years."""

    index: int
    patient: int
    study: int
    timehash: int
    initial: bool
    uncertain: bool
    codes: str
    agfa: bool
    image: ImageSpec

    @property
    def fractured(self) -> bool:
        """Whether a fracture is to be seen on this image, or a lesion that counts as one."""
        return self.image.fractured

    @property
    def stem(self) -> str:
        """File name without its ending; every field agrees with a column."""
        who = self.image.subject
        return (
            f"{self.patient:04d}_{self.timehash:010d}_{self.study:02d}_"
            f"WRI-{self.image.laterality}{self.image.view}_{who.sex}{int(who.age):03d}"
        )

    def cells(self) -> dict[str, str]:
        """The line as text, column by column: flags 1 or empty, never 0."""
        image = self.image
        flags = {
            "initial_exam": self.initial,
            "cast": image.cast,
            "diagnosis_uncertain": self.uncertain,
            "osteopenia": image.osteopenia,
            "fracture_visible": self.fractured,
            "metal": image.metal,
        }
        return {
            "filestem": self.stem,
            "patient_id": str(self.patient),
            "study_number": str(self.study),
            "timehash": str(self.timehash),
            "gender": image.subject.sex,
            "age": f"{image.subject.age:g}",
            "laterality": image.laterality,
            "projection": str(image.view),
            "ao_classification": self.codes,
            "pixel_spacing": "0.143" if self.agfa else "0.144",
            "device_manufacturer": "Agfa" if self.agfa else "Siemens",
            **{name: "1" if value else "" for name, value in flags.items()},
        }


def write_phantoms(
    folder: Path, config: PhantomConfig, progress: Callable[[int], None] | None = None
) -> list[PlantedFault]:
    """Write ``config.images`` images with table and labels into a new or empty folder.

    ``progress`` is called with the number of images written so far. The table comes last, so a
    folder without one was cut short. The same seed gives the same bytes with any number of
    workers. Returns the planted faults, ``config.faults`` of each kind, each on its own image.
    Raises PedfracError if the folder holds anything or the faults need more images than there are.
    """
    _refuse_occupied(folder)
    if config.faults * len(FAULTS) > config.images:
        raise PedfracError(
            f"{config.faults} of each of {len(FAULTS)} faults need at least "
            f"{config.faults * len(FAULTS)} images; images is {config.images}"
        )
    rows = [_clearer(row, config.severity) for row in plan(config.images, config.seed)]
    if config.lesion != "none":
        rows = plan_lesions(config.images, config.seed, turns=config.lesion == "by age")
    faults = _choose_faults(rows, config)
    for name in (*(f"images_part{part}" for part in range(1, 5)), LABELS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    jobs = [
        _Job(row, folder, f"images_part{1 + 4 * row.index // len(rows)}", config,
             faults.get(row.index, ""))
        for row in rows
    ]  # fmt: skip
    for done, _ in enumerate(_run(jobs, config.workers), start=1):
        if progress is not None:
            progress(done)
    lines = [cells for row in rows for cells in _faulty_cells(row, faults.get(row.index, ""))]
    _write_table(folder / "dataset.csv", lines)
    logger.info("%d phantom images written to %s", len(rows), folder)
    return [PlantedFault(_stem(rows[index], kind), kind) for index, kind in sorted(faults.items())]


def _refuse_occupied(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise PedfracError(f"{folder} is a file; phantoms need a new or empty folder")
    if folder.exists() and any(folder.iterdir()):
        raise PedfracError(f"{folder} is not empty; phantoms need a new or empty folder")


def _write_table(path: Path, lines: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(lines)


# --- who is X-rayed --------------------------------------------------------------------------
def plan(count: int, seed: int) -> list[Row]:
    """Decide patients, studies and images without drawing any; the first n do not depend on more.

    Age groups and labels are stratified, not drawn: shares follow the real data, except that
    groups [0, 1.5) and [1.5, 5) get about 8 % and 10 % of the images until they have 48 and 80,
    and that labels start out even in each group. So a set of 200 images or more has patients with
    and without a fracture in every group. Within a group, age,
    sex, side, casts, osteopenia and metal are random, with prevalence as in the real data.
    """
    rows: list[Row] = []
    images, fractured = np.zeros(5), np.zeros(5)
    patient = 0
    while len(rows) < count:
        patient += 1
        group = _most_wanted(images)
        mixed = (_FRACTURED[group] * images[group] + 0.5 * 12) / (images[group] + 12)
        broken = bool(fractured[group] < mixed * (images[group] + 2))
        new = _patient(patient, group, broken, len(rows), seed)
        for row in new:
            images[_GROUPS.assign([row.image.subject.age])[0]] += 1
        fractured[group] += sum(row.fractured for row in new)
        rows += new
    return rows[:count]


def plan_lesions(count: int, seed: int, turns: bool) -> list[Row]:
    """Decide patients and images that a network can tell apart by one of two lesions alone.

    A frontal and a lateral image of each patient. Below LESION_AGE a dense lesion marks fractured
    images and a lucent one normal images; above, the same or, with ``turns``, the other way round.
    Age and label alternate and nothing else depends on them. So with ``turns`` the pixels carry no
    information on the label over all ages, and all of it within any age group on one side.
    """
    rows: list[Row] = []
    for patient in range(1, (count + 1) // 2 + 1):
        rng = np.random.default_rng([seed, 5, patient])
        old, broken = bool(patient & 1), bool(patient & 2)
        low, high = (LESION_AGE, 19.0) if old else (0.2, LESION_AGE - 0.1)
        age = round(float(rng.uniform(low, high)), 1)
        who = Subject(age, str(rng.choice(["M", "F"])), int(rng.integers(2**32)))
        side, clock = str(rng.choice(["L", "R"])), int(rng.integers(1, 1_350_000_000))
        lesion = Lesion(dense=broken != (old and turns), fracture=broken)
        for view in (FRONTAL, LATERAL):
            index = len(rows)
            image = ImageSpec(who, view, side, (seed, 5, index), lesion=lesion)
            rows.append(Row(index, patient, 1, clock + view, True, False, "", False, image))
    return rows[:count]


def _clearer(row: Row, least: float) -> Row:
    """Return the row with the severities of its fractures, 0 to 1, moved to ``least`` to 1."""
    fractures = tuple(
        replace(one, severity=least + (1 - least) * one.severity) for one in row.image.fractures
    )
    return replace(row, image=replace(row.image, fractures=fractures))


def _most_wanted(images: np.ndarray[Any, Any]) -> int:
    """Index of the age group that lags most behind its share of the images so far."""
    total = images.sum() + 3
    target = _SHARE * total
    target[:2] = np.maximum(target[:2], np.minimum([48.0, 80.0], [0.08 * total, 0.10 * total]))
    target[2:] *= (total - target[:2].sum()) / target[2:].sum()
    return int(np.argmax((target - images) / np.sqrt(target)))


def _patient(patient: int, group: int, broken: bool, start: int, seed: int) -> list[Row]:
    """All images of one patient, numbered from ``start``."""
    rng = np.random.default_rng([seed, 2, patient])
    sex = "O" if rng.random() < 1e-4 else ("M" if rng.random() < 0.59 else "F")
    side = "L" if rng.random() < 0.548 else "R"
    low, high = _GROUPS.bounds[group], _GROUPS.bounds[group + 1]
    skew = rng.random() ** (1.7 if group == 4 else 1.0)
    age = max(0.2, low + skew * (high - low - 0.1))
    shape_seed = int(rng.integers(2**32))
    fractures = _fractures(age, rng) if broken else ()
    unseen = _codes(_fractures(age, rng)) if not broken and rng.random() < 0.11 else ""
    odds = [0.30, 0.28, 0.18, 0.12, 0.07, 0.05] if broken else [0.96, 0.04, 0, 0, 0, 0]
    studies = 1 + int(rng.choice(6, p=odds)) // (2 if group == 0 else 1)
    plated = broken and age > 5 and rng.random() < 0.10
    agfa, clock = bool(rng.random() < 0.0055), int(rng.integers(1, 1_350_000_000))
    rows: list[Row] = []
    for study in range(1, studies + 1):
        who = Subject(round(min(age, 19.0), 1), sex, shape_seed)
        initial = study == 1 and rng.random() < (0.93 if broken else 0.985)
        cast = broken and not initial and rng.random() < (0.66 if study < 4 else 0.4)
        wasted = not cast and not initial and rng.random() < 0.2 * min(study, 3)
        healing = 0.0 if initial else min(1.0, 0.12 + 0.22 * (study - 1) + rng.uniform(0, 0.15))
        uncertain = bool(rng.random() < (0.008 if broken else 0.064))
        for view in _views(rng):
            clock += int(rng.integers(15, 130))
            seen = broken and rng.random() < 0.96
            faded = tuple(
                replace(f, severity=f.severity * rng.uniform(0.7, 1.0), healing=healing)
                for f in fractures
            )
            index = start + len(rows)
            image = ImageSpec(
                who, view, side, (seed, 1, index), faded if seen else (),
                _findings(view, broken and initial, rng), cast, plated and not initial, wasted,
            )  # fmt: skip
            codes = _codes(fractures) or unseen
            rows.append(Row(index, patient, study, clock, initial, uncertain, codes, agfa, image))
        wait = rng.uniform(0.03, 0.28)
        age, clock = age + wait, clock + int(wait * 31_557_600)
    return rows


def _views(rng: np.random.Generator) -> list[int]:
    draw = rng.random()
    if draw < 0.87:
        return [FRONTAL, LATERAL]
    if draw < 0.99:
        return [FRONTAL if rng.random() < 0.48 else LATERAL]
    return [FRONTAL, LATERAL, OBLIQUE]


def _findings(view: int, fresh: bool, rng: np.random.Generator) -> tuple[str, ...]:
    draws = rng.random(3)
    found = {
        "anomaly": draws[0] < 0.01,
        "swelling": draws[1] < (0.06 if fresh else 0.012),
        "pronator": view == LATERAL and draws[2] < (0.15 if fresh else 0.02),
    }
    return tuple(name for name, there in found.items() if there)


def _fractures(age: float, rng: np.random.Generator) -> tuple[Fracture, ...]:
    """One to three fractures that belong together; the young buckle, the older break through."""
    old = float(np.clip((age - 4) / 10, 0, 1))
    odds = np.array([0.62 - 0.42 * old, 0.22, 0.16 + 0.22 * old, 0.2 * old * (age < 16.5)])
    kinds = ("buckle", "greenstick", "transverse", "physeal")
    kind = str(rng.choice(kinds, p=odds / odds.sum()))
    place, side = float(rng.uniform(9, 31)), int(rng.choice([-1, 1]))
    severity = float(0.15 + 0.85 * rng.beta(2.0, 1.1))
    if rng.random() < 0.05:
        return (Fracture("ulna", "buckle" if age < 8 else "transverse", place, severity, side),)
    found = [Fracture("radius", kind, place, severity, side)]
    if kind != "physeal" and rng.random() < 0.32:
        second = "transverse" if kind == "transverse" else "buckle"
        near = place + float(rng.uniform(-4, 4))
        found.append(Fracture("ulna", second, near, severity * float(rng.uniform(0.4, 0.9)), side))
    elif age > 9 and rng.random() < 0.38:
        found.append(Fracture("styloid", "avulsion", 0.0, float(rng.uniform(0.2, 1)), side))
    return tuple(found)


def _codes(fractures: tuple[Fracture, ...]) -> str:
    """AO paediatric codes, joined by a semicolon."""
    kinds = {"buckle": "M/2.1", "greenstick": "M/2.1", "transverse": "M/3.1", "physeal": "E/2.1"}
    found = []
    for fracture in fractures:
        letter = "r" if fracture.bone == "radius" else "u"
        found.append(f"23{letter}-{kinds.get(fracture.kind, 'E/7')}")
    both = len(found) == 2 and found[0][4:] == found[1][4:]
    return f"23-{found[0][4:]}" if both else "; ".join(found)


# --- images to files --------------------------------------------------------------------------
@dataclass(frozen=True)
class _Job:
    row: Row
    folder: Path
    part: str
    config: PhantomConfig
    fault: str


def render_row(row: Row, config: PhantomConfig) -> tuple[Image, list[Box]]:
    """Draw the image of a row: (height, width) uint16 and its boxes in pixels. Pure."""
    return render(row.image, config.scale, config.shortcut)


def _run(jobs: list[_Job], workers: int) -> Iterator[None]:
    """Do all jobs, here or in fresh processes; yields once per image, in order."""
    workers = min(workers or os.cpu_count() or 1, len(jobs) // 16)
    if workers <= 1:
        yield from map(_write_image, jobs)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the caller's threads' locks
    with ProcessPoolExecutor(workers, context, initializer=_single_thread) as pool:
        yield from pool.map(_write_image, jobs, chunksize=8)


def _single_thread() -> None:
    cv2.setNumThreads(1)


def _write_image(job: _Job) -> None:
    """Write one image and its labels, with its planted fault if it has one."""
    image, boxes = render_row(job.row, job.config)
    stem = _stem(job.row, job.fault)
    lines = [_yolo(box, image.shape) for box in boxes]
    if job.fault == "class":
        lines.append("9 0.500000 0.500000 0.100000 0.100000")
    if job.fault == "box":
        lines.append(f"{TEXT} 1.250000 0.500000 0.100000 0.100000")
    (job.folder / LABELS / f"{stem}.txt").write_text("".join(f"{line}\n" for line in lines))
    ok, encoded = cv2.imencode(".png", image, _PNG)
    if not ok:
        raise PedfracError(f"{stem}: the image of shape {image.shape} could not be written as PNG")
    data = encoded.tobytes()
    if job.fault == "truncated":
        data = data[: len(data) // 2]
    if job.fault == "unreadable":
        data = b"This is not an image.\n" * 20
    if job.fault != "missing":
        (job.folder / job.part / f"{stem}.png").write_bytes(data)


def _yolo(box: Box, shape: tuple[int, ...]) -> str:
    """Class, centre, width and height as fractions of the image."""
    height, width = shape
    centre = (box.x0 + box.x1) / 2 / width, (box.y0 + box.y1) / 2 / height
    extent = (box.x1 - box.x0) / width, (box.y1 - box.y0) / height
    return f"{box.label} " + " ".join(f"{value:.6f}" for value in (*centre, *extent))


# --- faults ----------------------------------------------------------------------------------
def _choose_faults(rows: list[Row], config: PhantomConfig) -> dict[int, str]:
    """Image index to fault kind; no image has two."""
    rng = np.random.default_rng([config.seed, 4])
    chosen = rng.permutation(len(rows))[: config.faults * len(FAULTS)]
    return {int(index): FAULTS[place % len(FAULTS)] for place, index in enumerate(chosen)}


def _stem(row: Row, fault: str) -> str:
    """The stem; a wrong age stands in the name too, so that the age is the only fault."""
    return row.stem[:-3] + "190" if fault == "age" else row.stem


def _faulty_cells(row: Row, fault: str) -> list[dict[str, str]]:
    """The row's lines in the table: one, or two for a duplicate."""
    cells = row.cells()
    if fault == "duplicate":
        return [cells, cells]
    if fault == "age":
        cells |= {"filestem": _stem(row, fault), "age": "190"}
    if fault == "fracture-flag":
        cells["fracture_visible"] = "" if row.fractured else "1"
    if fault == "filename":
        cells["laterality"] = "R" if row.image.laterality == "L" else "L"
    return [cells]
