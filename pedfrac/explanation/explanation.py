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

from pedfrac.config.evaluation import EvaluationConfig, ExplanationConfig
from pedfrac.data.schema import CLASSES
from pedfrac.explanation.faithfulness import faithfulness_figures
from pedfrac.explanation.localisation import (
    NOTE,
    Localisation,
    centre_maps,
    join,
    localisation,
    localisation_figures,
)
from pedfrac.explanation.outcomes import VERDICTS, choose, film_table, ranked
from pedfrac.explanation.overlays import (
    MONTAGE_COLUMNS,
    MONTAGE_ROWS,
    View,
    draw_film,
    draw_montage,
)
from pedfrac.explanation.randomisation_check import random_weights_figures
from pedfrac.explanation.saliency import FRACTURED, mean_maps
from pedfrac.imaging.letterbox import Placement
from pedfrac.models.classifier import FilmClassifier
from pedfrac.models.inputs import to_films
from pedfrac.packs.pack import Pack
from pedfrac.statistics.patient_bootstrap import PatientBootstrap
from pedfrac.storage.files import write_json

FRACTURE_BOX = CLASSES.index("fracture")
CHUNK = 256  # films whose maps are in memory at a time
BATCH = 64
Window = tuple[int, int, int, int]


def explain_group(
    folder: Path,
    name: str,
    model: FilmClassifier | Sequence[FilmClassifier],
    pack: Pack,
    rows: NDArray[np.int64],
    truth: NDArray[np.bool_],
    probability: NDArray[np.float64],
    threshold: float,
    config: ExplanationConfig,
    *,
    device: torch.device,
    evaluation: EvaluationConfig | None = None,
) -> dict[str, Any]:
    """Write figures.json, montage.png and pictures of films under ``folder/name``.

    ``model``: the network, or those whose probabilities are averaged and so their maps. ``rows``
    (n,) of the pack are the films of the group, with their truth (n,) and probability (n,) of a
    fracture; a film is called fractured from the threshold on. All films count in the figures of
    localisation, at most ``config.films_per_group`` have a picture. ``evaluation`` says how
    intervals are made; none: as by default. Returns what figures.json holds.
    """
    models = [model] if isinstance(model, FilmClassifier) else list(model)
    models = [copy.deepcopy(one).to(device).eval() for one in models]  # left as they were
    table = film_table(pack, rows, truth, probability, threshold)
    group = _Group(models, pack, table, config, evaluation or EvaluationConfig(), device)
    chosen = choose(table, config.films_per_group)
    montage = {verdict: ranked(table, verdict)[:MONTAGE_COLUMNS] for verdict in MONTAGE_ROWS}
    shown = {at for places in (chosen, *montage.values()) for at in places}
    measured, kept = _measure(group, shown)
    views = {at: _view(group, at, heat, threshold) for at, heat in kept.items()}
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    for at in chosen:
        draw_film(views[at], config.method, target / views[at].file)
    place = target / "montage.png"
    draw_montage(name, table, montage, views, threshold, config.method, place)
    figures = {
        "group": name,
        "films": len(table),
        "with_boxes": sum(len(group.boxes(at)) > 0 for at in table.index),
        "networks": len(models),
        "method": config.method,
        "methods": measured,
        "note": NOTE.format(marked=config.marked),
        "verdicts": {verdict: int((table["verdict"] == verdict).sum()) for verdict in VERDICTS},
        "pictures": [views[at].file for at in chosen],
        **_in_short(measured[config.method]["localisation"]),
    }
    write_json(target / "figures.json", figures)
    return figures


@dataclass(frozen=True, eq=False)
class _Group:
    """The films of a group, one row of the table each, and how they are explained."""

    models: list[FilmClassifier]
    pack: Pack
    table: pd.DataFrame
    config: ExplanationConfig
    evaluation: EvaluationConfig
    device: torch.device

    def films(self, places: pd.Index) -> NDArray[np.uint8]:
        return self.pack.images[self.table.loc[places, "row"].to_numpy()]

    def maps(self, places: pd.Index, method: str) -> NDArray[np.float32]:
        films = self.films(places)
        return mean_maps(self.models, films, FRACTURED, method, device=self.device)

    def boxes(self, at: int) -> NDArray[np.float32]:
        return self.pack.boxes_of(self.table["row"].to_numpy()[at], FRACTURE_BOX)

    def window(self, at: int) -> Window:
        """Return where a film lies in its letterbox, xyxy."""
        film: Any = self.table.loc[at]
        placement = Placement.of(int(film.height), int(film.width), self.pack.preparation.size)
        height, width = placement.inner
        return placement.dx, placement.dy, placement.dx + width, placement.dy + height

    def patients(self, places: Any) -> NDArray[Any]:
        return self.table["patient_id"].to_numpy()[places]

    def bootstrap(self, patients: NDArray[Any]) -> PatientBootstrap:
        how = self.evaluation
        return PatientBootstrap(patients, how.resamples, how.seed, how.interval)

    @torch.inference_mode()
    def score(self, films: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the mean probability (n,) of a fracture."""
        scores = []
        for some in np.array_split(films, max(1, -(-len(films) // BATCH))):
            batch = to_films(some, self.device)
            outputs = [model(batch) for model in self.models]
            probabilities = [output.float().softmax(dim=1)[:, FRACTURED] for output in outputs]
            scores.append(torch.stack(probabilities).mean(dim=0).double().cpu().numpy())
        return np.concatenate(scores)


def _measure(
    group: _Group, shown: set[int]
) -> tuple[dict[str, dict[str, Any]], dict[int, NDArray[np.float32]]]:
    """Return the figures of each method, and the maps to be shown, which are of the first."""
    measured: dict[str, dict[str, Any]] = {}
    kept: dict[int, NDArray[np.float32]] = {}
    for method in dict.fromkeys((group.config.method, *group.config.compared)):
        found, centre, maps = _localise(group, method, shown if not measured else set())
        bootstrap = group.bootstrap(group.patients(found.film))
        kept |= maps
        measured[method] = {
            "localisation": localisation_figures(found, centre, bootstrap),
            **_check(group, method),
        }
    return measured, kept


def _localise(
    group: _Group, method: str, shown: set[int]
) -> tuple[Localisation, Localisation, dict[int, NDArray[np.float32]]]:
    """Return how all films' maps and centre priors meet the boxes, and the maps to be shown."""
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
        parts.append(tuple(replace(one, film=one.film + start) for one in both))
        kept |= {at: maps[at - start].copy() for at in places if at in shown}
    found, centre = (join(one) for one in zip(*parts, strict=True))
    return found, centre, kept


def _check(group: _Group, method: str) -> dict[str, Any]:
    """Return the figures of a method under random weights, and of its faithfulness; null if off."""
    places = _checked(group.table, group.config.checked_films)
    figures: dict[str, Any] = {"random_weights": None, "faithfulness": None}
    if not group.config.checked_films:
        return figures
    films, patients = group.films(places), group.patients(places)
    windows = [group.window(at) for at in places]
    figures["random_weights"] = random_weights_figures(
        group.models, films, windows, patients, method, group.bootstrap, device=group.device
    )
    if group.config.faithfulness == "insertion_deletion":
        maps = group.maps(places, method)
        figures["faithfulness"] = faithfulness_figures(
            group.score, films, maps, windows, group.bootstrap(patients)
        )
    return figures


def _checked(table: pd.DataFrame, most: int) -> pd.Index:
    """Return the places of so many fractured films at random, each of another patient."""
    fractured = table[table["truth"]].sample(frac=1, random_state=0)
    return fractured.drop_duplicates("patient_id").head(most).index.sort_values()


def _in_short(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of the drawn method that a table has room for."""
    return {
        "pointing": figures["pointing"]["map"],
        "mass": figures["energy"]["map"],
        "chance": figures["energy"]["chance"]["value"],
    }


def _view(group: _Group, at: int, heat: NDArray[np.float32], threshold: float) -> View:
    film: Any = group.table.loc[at]
    return View(
        stem=film.filestem,
        age=float(film.age),
        truth=bool(film.truth),
        probability=float(film.probability),
        threshold=threshold,
        verdict=film.verdict,
        film=np.asarray(group.pack.images[film.row]),
        heat=heat,
        boxes=group.boxes(at),
        window=group.window(at),
    )
