"""The step that scores disturbed test images, and such without bones.

Its key follows the code, as that of the evaluation does.
"""

from functools import partial
from pathlib import Path

import numpy as np

from pedfrac.bundle.bundle import Bundle
from pedfrac.compute.devices import resolve_device
from pedfrac.config.base import Section
from pedfrac.config.evaluation import IntervalConfig, RobustnessConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.evaluation import evaluation as evaluations
from pedfrac.evaluation import robustness, shortcuts
from pedfrac.packs.pack import TEXT, Pack
from pedfrac.pipeline.keys import Prepared, scored_and_packed, store_of
from pedfrac.pipeline.maker import Given, Maker
from pedfrac.storage.files import write_json

CODE = (
    *("age_groups", "bundle", "compute.devices", "data", "evaluation", "imaging", "models"),
    *("packs", "pipeline.robustness", "scoring", "statistics"),
)


class RobustnessSettings(Section):
    """What disturbed images are made by, and the intervals of their metrics."""

    robustness: RobustnessConfig
    intervals: IntervalConfig


def check_robustness(
    config: RetrainConfig, prepared: Prepared, bundle: str, evaluation: str
) -> str:
    """Score disturbed test images, and such without bones: robustness.json and shortcuts.json."""
    store = store_of(config)
    settings = RobustnessSettings(
        robustness=config.robustness, intervals=config.evaluation.part(IntervalConfig)
    )
    parents = scored_and_packed(store, prepared, bundle, evaluation)
    return ROBUSTNESS.produce(store, settings, parents, config.runtime).key


def _make(folder: Path, given: Given[RobustnessSettings]) -> None:
    parents, how, intervals = given.parents, given.settings.robustness, given.settings.intervals
    loaded = Bundle.load(parents["bundle"].path, resolve_device(given.runtime.device))
    pack = Pack.open(parents["fracture_pack"].path)
    images = evaluations.load_predictions(parents["evaluation"].path)
    images = images.iloc[robustness.choose_images(images["patient_id"], how)]
    rows, groups = pack.rows(images["filestem"].tolist()), images["group"].to_numpy()
    score = partial(loaded.probability, groups=groups)
    known = pack.images[rows], images["fracture_visible"], images["patient_id"]
    thresholds = np.array(loaded.scorers["bundle"].thresholds)[groups]
    disturbed = robustness.robustness_metrics(score, *known, thresholds, how, intervals)
    texts = [pack.boxes_of(row, TEXT) for row in rows]
    boneless = shortcuts.shortcut_metrics(score, known[0], texts, *known[1:], intervals)
    write_json(folder / "robustness.json", disturbed)
    write_json(folder / "shortcuts.json", boneless)


ROBUSTNESS = Maker("robustness", _make, CODE)
