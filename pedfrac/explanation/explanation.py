"""Explanation of one age group: its heat maps measured, checked and drawn.

Not here: the predictions and thresholds that are explained (the evaluation makes them).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pedfrac.config.evaluation import ExplanationConfig, IntervalConfig
from pedfrac.data.schema import CLASSES
from pedfrac.explanation.detection import detection_metrics
from pedfrac.explanation.faithfulness import faithfulness_metrics
from pedfrac.explanation.localisation import (
    NOTE,
    Localisation,
    centre_maps,
    covered,
    join,
    localisation,
    localisation_metrics,
)
from pedfrac.explanation.metrics import (
    Detection,
    Faithfulness,
    GroupExplanation,
    MethodMetrics,
    RandomWeights,
)
from pedfrac.explanation.outcomes import VERDICTS, choose, image_table, ranked
from pedfrac.explanation.overlays import (
    MONTAGE_COLUMNS,
    MONTAGE_ROWS,
    View,
    draw_image,
    draw_montage,
)
from pedfrac.explanation.randomisation_check import random_weights_metrics
from pedfrac.explanation.saliency import FRACTURED, mean_maps
from pedfrac.imaging.letterbox import Placement
from pedfrac.models.classifier import ImageClassifier
from pedfrac.models.finding_maps import kept_maps
from pedfrac.models.inputs import to_images
from pedfrac.packs.pack import Pack
from pedfrac.scoring.finding_boxes import FindingBox, boxes_of_map
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.storage.files import write_json

FRACTURE_BOX = CLASSES.index("fracture")
CHUNK = 256  # images whose maps are in memory at a time
BATCH = 64
DRAWN = 0.5  # least score of a box that is drawn
Window = tuple[int, int, int, int]


def explain_group(
    folder: Path,
    name: str,
    model: ImageClassifier | Sequence[ImageClassifier],
    pack: Pack,
    rows: NDArray[np.int64],
    truth: NDArray[np.bool_],
    probability: NDArray[np.float64],
    threshold: float,
    config: ExplanationConfig,
    *,
    device: torch.device,
    evaluation: IntervalConfig | None = None,
    finder: object = None,
) -> GroupExplanation:
    """Write metrics.json, montage.png and pictures of images under ``folder/name``.

    ``model``: the network, or those whose probabilities are averaged and so their maps. ``rows``
    (n,) of the pack are the images of the group, with their truth (n,) and probability (n,) of a
    fracture; an image is called fractured from the threshold on. All images count in the metrics of
    localisation, at most ``config.images_per_group`` have a picture. ``evaluation`` says how
    intervals are made; none: as by default. ``finder``: the network whose fracture map marks boxes
    at prediction, which are measured and drawn, too. Returns what metrics.json holds.
    """
    models = [model] if isinstance(model, ImageClassifier) else list(model)
    models = [copy.deepcopy(one).to(device).eval() for one in models]  # left as they were
    table = image_table(pack, rows, truth, probability, threshold)
    group = _Group(models, pack, table, config, evaluation or IntervalConfig(), device)
    chosen = choose(table, config.images_per_group)
    montage = {verdict: ranked(table, verdict)[:MONTAGE_COLUMNS] for verdict in MONTAGE_ROWS}
    shown = {at for places in (chosen, *montage.values()) for at in places}
    measured, kept = _measure(group, shown)
    marks = fracture_boxes(finder, group, device)
    views = {
        at: _view(group, at, heat, threshold, marks[at] if marks else [])
        for at, heat in kept.items()
    }
    target = folder / name
    _draw(target, name, group, views, (chosen, montage), threshold)
    drawn = measured[config.method].localisation
    metrics = GroupExplanation(
        group=name,
        images=len(table),
        with_boxes=sum(len(group.boxes(at)) > 0 for at in table.index),
        networks=len(models),
        method=config.method,
        methods=measured,
        note=NOTE.format(marked=config.marked),
        verdicts={verdict: int((table["verdict"] == verdict).sum()) for verdict in VERDICTS},
        pictures=[views[at].file for at in chosen],
        pointing=drawn.pointing.map,
        mass=drawn.energy.map,
        chance=drawn.energy.chance.value,
        boxes=None if marks is None else _detected(group, marks),
    )
    write_json(target / "metrics.json", metrics)
    return metrics


def _draw(
    folder: Path,
    name: str,
    group: "_Group",
    views: dict[int, View],
    choice: tuple[Sequence[int], dict[str, list[int]]],
    threshold: float,
) -> None:
    """Write the pictures of the chosen images, and the montage of each verdict's first ones."""
    chosen, montage = choice
    folder.mkdir(parents=True, exist_ok=True)
    for at in chosen:
        draw_image(views[at], group.config.method, folder / views[at].file)
    place = folder / "montage.png"
    draw_montage(name, group.table, montage, views, threshold, group.config.method, place)


@dataclass(frozen=True, eq=False)
class _Group:
    """The images of a group, one row of the table each, and how they are explained."""

    models: list[ImageClassifier]
    pack: Pack
    table: pd.DataFrame
    config: ExplanationConfig
    evaluation: IntervalConfig
    device: torch.device

    def images(self, places: pd.Index) -> NDArray[np.uint8]:
        return self.pack.images[self.table.loc[places, "row"].to_numpy()]

    def maps(self, places: pd.Index, method: str) -> NDArray[np.float32]:
        images = self.images(places)
        return mean_maps(self.models, images, FRACTURED, method, device=self.device)

    def boxes(self, at: int) -> NDArray[np.float32]:
        return self.pack.boxes_of(self.table["row"].to_numpy()[at], FRACTURE_BOX)

    def window(self, at: int) -> Window:
        """Return where an image lies in its letterbox, xyxy."""
        image: Any = self.table.loc[at]
        size = self.pack.preparation.size
        return Placement.of(int(image.height), int(image.width), size).corners

    def patients(self, places: Any) -> NDArray[Any]:
        return self.table["patient_id"].to_numpy()[places]

    def bootstrap(self, patients: NDArray[Any]) -> PatientBootstrap:
        how = self.evaluation
        return PatientBootstrap(patients, how.resamples, how.seed)

    @torch.inference_mode()
    def score(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the mean probability (n,) of a fracture."""
        scores = []
        for some in np.array_split(images, max(1, -(-len(images) // BATCH))):
            batch = to_images(some, self.device)
            outputs = [model(batch) for model in self.models]
            probabilities = [output.float().softmax(dim=1)[:, FRACTURED] for output in outputs]
            scores.append(torch.stack(probabilities).mean(dim=0).double().cpu().numpy())
        return np.concatenate(scores)


def _measure(
    group: _Group, shown: set[int]
) -> tuple[dict[str, MethodMetrics], dict[int, NDArray[np.float32]]]:
    """Return the metrics of each method, and the maps to be shown, which are of the first."""
    measured: dict[str, MethodMetrics] = {}
    kept: dict[int, NDArray[np.float32]] = {}
    for method in dict.fromkeys((group.config.method, *group.config.compared)):
        found, centre, maps = _localise(group, method, shown if not measured else set())
        bootstrap = group.bootstrap(group.patients(found.image))
        kept |= maps
        random_weights, faithfulness = _check(group, method)
        measured[method] = MethodMetrics(
            localisation=localisation_metrics(found, centre, bootstrap),
            random_weights=random_weights,
            faithfulness=faithfulness,
        )
    return measured, kept


def _localise(
    group: _Group, method: str, shown: set[int]
) -> tuple[Localisation, Localisation, dict[int, NDArray[np.float32]]]:
    """Return how all images' maps and centre priors meet the boxes, and the maps to be shown."""
    parts: list[tuple[Localisation, ...]] = []
    kept: dict[int, NDArray[np.float32]] = {}
    for start in range(0, max(len(group.table), 1), CHUNK):
        places = group.table.index[start : start + CHUNK]
        maps = group.maps(places, method)
        boxes = [group.boxes(at) for at in places]
        windows = [group.window(at) for at in places]
        both = [
            localisation(heat, boxes, windows, group.config.marked)
            for heat in (maps, centre_maps(maps, windows))
        ]
        parts.append(tuple(replace(one, image=one.image + start) for one in both))
        kept |= {at: maps[at - start].copy() for at in places if at in shown}
    found, centre = (join(one) for one in zip(*parts, strict=True))
    return found, centre, kept


def _check(group: _Group, method: str) -> tuple[RandomWeights | None, Faithfulness | None]:
    """Return the metrics of a method under random weights, and of its faithfulness; None if off."""
    places = _checked(group.table, group.config.checked_images)
    if not group.config.checked_images:
        return None, None
    images, patients = group.images(places), group.patients(places)
    windows = [group.window(at) for at in places]
    random_weights = random_weights_metrics(
        group.models, images, windows, patients, method, group.bootstrap, device=group.device
    )
    if group.config.faithfulness == "none":
        return random_weights, None
    maps = group.maps(places, method)
    return random_weights, faithfulness_metrics(
        group.score, images, maps, windows, group.bootstrap(patients)
    )


def _checked(table: pd.DataFrame, most: int) -> pd.Index:
    """Return the places of so many fractured images at random, each of another patient."""
    fractured = table[table["truth"]].sample(frac=1, random_state=0)
    return fractured.drop_duplicates("patient_id").head(most).index.sort_values()


def fracture_boxes(
    finder: object, group: _Group, device: torch.device
) -> list[list[FindingBox]] | None:
    """Return the boxes of each image by a network's fracture map; None where it has none."""
    classes = finder.map_classes if isinstance(finder, ImageClassifier) else ()
    if not isinstance(finder, ImageClassifier) or "fracture" not in classes:
        return None
    finder, place = finder.to(device).eval(), classes.index("fracture")
    boxes = []
    for start in range(0, len(group.table), BATCH):
        places = group.table.index[start : start + BATCH]
        with kept_maps(finder) as maps, torch.inference_mode():
            finder(to_images(group.images(places), device))
        for at, heat in zip(places, maps[0][:, place].numpy(), strict=True):
            boxes.append(boxes_of_map(heat, group.pack.images.shape[1:], group.window(at)))
    return boxes


def _detected(group: _Group, marks: list[list[FindingBox]]) -> Detection:
    """Return how well boxes find the marked fractures of all images."""
    places = group.table.index
    truths, windows = [group.boxes(at) for at in places], [group.window(at) for at in places]
    areas = np.array([covered(found, one) for found, one in zip(truths, windows, strict=True)])
    return detection_metrics(marks, truths, areas, group.bootstrap(group.patients(places)))


def _view(
    group: _Group,
    at: int,
    heat: NDArray[np.float32],
    threshold: float,
    marks: Sequence[FindingBox],
) -> View:
    image: Any = group.table.loc[at]
    return View(
        stem=image.filestem,
        age=float(image.age),
        truth=bool(image.truth),
        probability=float(image.probability),
        threshold=threshold,
        verdict=image.verdict,
        image=np.asarray(group.pack.images[image.row]),
        heat=heat,
        boxes=group.boxes(at),
        window=group.window(at),
        marks=[mark for mark in marks if mark.score >= DRAWN],
    )
