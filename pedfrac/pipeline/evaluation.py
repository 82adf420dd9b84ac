"""The step that scores the test images of a bundle and computes all metrics.

Its key follows the code, not only what goes in: a metric that is computed otherwise must not be
taken for one that is there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pedfrac.age_groups import AgeGroups
from pedfrac.bundle.bundle import Bundle
from pedfrac.compute.devices import resolve_device
from pedfrac.config.base import Numbers, Section
from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.runtime import RuntimeConfig
from pedfrac.data import split as data_split
from pedfrac.errors import PedfracError
from pedfrac.evaluation import evaluation as evaluations
from pedfrac.packs.pack import Pack
from pedfrac.pipeline.keys import Prepared, parents_of, store_of
from pedfrac.pipeline.maker import Given, Maker
from pedfrac.scoring.studies import STUDY
from pedfrac.storage.manifest import Artifact

CODE = (
    *("age_groups", "bundle", "compute.devices", "data", "evaluation", "imaging", "models"),
    *("packs", "pipeline.evaluation", "scoring", "statistics"),
)


class EvaluationSettings(Section):
    """What metrics are made by: the age groups that have rows of their own, and the rules."""

    age_bounds: Numbers
    evaluation: EvaluationConfig

    @classmethod
    def of(cls, config: RetrainConfig) -> "EvaluationSettings":
        """Return those of a retraining."""
        return cls(age_bounds=config.cohort.age_bounds, evaluation=config.evaluation)

    @property
    def ages(self) -> AgeGroups:
        """The age groups."""
        return AgeGroups(self.age_bounds)


def evaluate_bundle(
    config: RetrainConfig, prepared: Prepared, bundle: str, folds: str | None = None
) -> str:
    """Score the test images and compute all metrics; those of pooled ``folds`` go beside them."""
    store = store_of(config)
    parents = parents_of(store, prepared, bundle=bundle, **({"folds": folds} if folds else {}))
    settings = EvaluationSettings.of(config)
    return EVALUATION.produce(store, settings, parents, config.runtime).key


def _make(folder: Path, given: Given[EvaluationSettings]) -> None:
    images = scored_test_images(given.parents, given.runtime, every=True)
    metrics = evaluations.evaluate(
        images.scores,
        images.learned,
        given.settings.ages,
        images.bundle.scorers,
        given.settings.evaluation,
        images.companions,
        evaluations.load_folds(folds.path) if (folds := given.parents.get("folds")) else None,
    )
    evaluations.save_evaluation(folder, images.scores, metrics)


EVALUATION = Maker("evaluation", _make, CODE)


class Scored(NamedTuple):
    """Test images with a bundle's scores, and metadata of the images it was trained on.

    ``companions``: images of the same studies that are left out of the test set, likewise scored,
    since a study is all of its images.
    """

    bundle: Bundle
    scores: pd.DataFrame
    learned: pd.DataFrame
    companions: pd.DataFrame


def scored_test_images(
    parents: Mapping[str, Artifact], runtime: RuntimeConfig, *, every: bool
) -> Scored:
    """Score the test images of a bundle's split, and their companions.

    ``every`` specialist is asked, or those of an image's age groups alone. Raises PedfracError
    where the bundle's networks learned by another split.
    """
    bundle, by = parents["bundle"], parents["split"]
    if bundle.manifest.parents["split"].digest != by.digest:
        raise PedfracError(f"{bundle.key} did not learn by {by.key}")
    loaded = Bundle.load(bundle.path, resolve_device(runtime.device))
    fracture, age = (Pack.open(parents[name].path) for name in ("fracture_pack", "age_pack"))
    split, metadata = data_split.load_split(by.path), fracture.index.set_index("filestem")
    images = _test_images(split)
    others = _companions(split, metadata, images)
    scores = loaded.score_packs(
        fracture, age, images + others, specialists="every" if every else "both"
    )
    scores = scores.join(metadata, on="filestem")
    learned = metadata.loc[split.images("train") + split.images("validation")].reset_index()
    return Scored(loaded, scores[: len(images)], learned, scores[len(images) :])


def _companions(split: data_split.Split, metadata: pd.DataFrame, images: list[str]) -> list[str]:
    """Return the images of the same studies that a test set of few images a patient leaves out."""
    table = split.table
    left = table["filestem"][table["reason"] == data_split.TEST_PATIENT].tolist()
    tested, others = (
        pd.MultiIndex.from_frame(metadata.loc[some, STUDY]) for some in (images, left)
    )
    return [image for image, shown in zip(left, others.isin(tested), strict=True) if shown]


def _test_images(split: data_split.Split) -> list[str]:
    images = split.images("test")
    if not images:
        raise PedfracError("the split has no test image: nothing can be evaluated")
    return images
