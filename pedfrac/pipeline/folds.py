"""Cross-validation folds: each is held out from its own networks; metrics are pooled."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pedfrac.age_groups import AgeGroups
from pedfrac.config.base import Numbers, Section
from pedfrac.config.data import FoldConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.data import cohort as cohorts
from pedfrac.data import split, splitting
from pedfrac.evaluation import evaluation as evaluations
from pedfrac.pipeline.evaluation import EvaluationSettings, scored_test_images
from pedfrac.pipeline.keys import Prepared, parents_of, store_of
from pedfrac.pipeline.maker import Given, Maker
from pedfrac.storage.inputs import Inputs
from pedfrac.storage.manifest import Artifact

FOLD_SPLIT = "fold-split"
CODE = (
    *("age_groups", "bundle", "compute.devices", "data", "evaluation", "imaging", "models"),
    *("packs", "pipeline.evaluation", "pipeline.folds", "scoring", "statistics"),
)


class FoldSettings(FoldConfig):
    """By what a fold is cut: the rules of all folds, and which it is."""

    fold: int
    age_bounds: Numbers


class NoSettings(Section):
    """Of a maker whose parents say all."""


def cut_folds(config: RetrainConfig, prepared: Prepared) -> list[Prepared]:
    """Return the keys of the prepared data of each fold; none without ``split.folds``."""
    return [
        prepared.model_copy(update={"split": _cut_fold(config, prepared, fold)})
        for fold in range(config.split.held_out)
    ]


def fold_in_words(config: RetrainConfig, prepared: Prepared) -> str:
    """Return the suffix that names the trainings of a fold; empty for the bundle's own."""
    manifest = store_of(config).peek(prepared.split).manifest
    rules = manifest.config
    return f", fold {rules['fold'] + 1} of {rules['folds']}" if manifest.kind == FOLD_SPLIT else ""


def _cut_fold(config: RetrainConfig, prepared: Prepared, fold: int) -> str:
    store = store_of(config)
    parents = {"cohort": store.peek(prepared.cohort), "split": store.peek(prepared.split)}
    settings = FoldSettings(
        **config.split.part(FoldConfig).model_dump(),
        fold=fold,
        age_bounds=config.cohort.age_bounds,
    )
    return FOLDS.produce(store, settings, parents, config.runtime).key


def _make_fold(folder: Path, given: Given[FoldSettings]) -> None:
    settings = given.settings
    table = cohorts.load_cohort(given.parents["cohort"].path).table
    whole = split.load_split(given.parents["split"].path)
    made = splitting.cut_fold(whole, table, settings, AgeGroups(settings.age_bounds), settings.fold)
    split.save_split(*made, folder)


FOLDS = Maker(FOLD_SPLIT, _make_fold)


@dataclass(frozen=True)
class FoldScoring:
    """Scoring of the images that a fold holds out, by the bundle of its own networks.

    ``key``: under which the images with scores, calls and baselines will lie.
    """

    config: RetrainConfig
    prepared: Prepared
    bundle: str

    @property
    def name(self) -> str:
        """Which fold it is, in words."""
        return fold_in_words(self.config, self.prepared).removeprefix(", ")

    @property
    def inputs(self) -> Inputs:
        """What the scores are made from."""
        return FOLD_SCORES.inputs(NoSettings(), self._from)

    @property
    def key(self) -> str:
        """The key of the scores, known before they are made."""
        return self.inputs.key

    @property
    def done(self) -> bool:
        """Whether the scores are in the store."""
        return store_of(self.config).exists(self.key)

    def run(self) -> str:
        """Score and call the images; return the key."""
        store, runtime = store_of(self.config), self.config.runtime
        return FOLD_SCORES.produce(store, NoSettings(), self._from, runtime).key

    @property
    def _from(self) -> dict[str, Artifact]:
        return parents_of(store_of(self.config), self.prepared, bundle=self.bundle)


def _make_scores(folder: Path, given: Given[NoSettings]) -> None:
    held_out = scored_test_images(given.parents, given.runtime, every=False)
    images = evaluations.call_images(held_out.scores, held_out.learned, held_out.bundle.scorers)
    images.to_parquet(folder / evaluations.PREDICTIONS, index=False)


FOLD_SCORES = Maker("fold-scores", _make_scores, CODE)


def pool_folds(config: RetrainConfig, scores: Sequence[str]) -> str:
    """Pool the held-out images of all folds in one table, and compute their metrics."""
    store = store_of(config)
    parents = {f"fold-{number}": store.peek(key) for number, key in enumerate(scores)}

    return POOLED.produce(store, EvaluationSettings.of(config), parents, config.runtime).key


def _make_pooled(folder: Path, given: Given[EvaluationSettings]) -> None:
    settings = given.settings
    folds = [pd.read_parquet(one.file(evaluations.PREDICTIONS)) for one in given.parents.values()]
    pooled = evaluations.pooled_metrics(folds, settings.ages, settings.evaluation)
    evaluations.save_evaluation(folder, *pooled)


POOLED = Maker("folds", _make_pooled, CODE)
