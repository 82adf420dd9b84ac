"""Steps of folds: each held out in turn from networks of its own, and the pooled metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from pedfrac.config.retrain import RetrainConfig
from pedfrac.data import cohort as cohorts
from pedfrac.data import split, splitting
from pedfrac.evaluation import evaluation as evaluations
from pedfrac.pipeline.evaluation import scored_test_images
from pedfrac.pipeline.keys import Prepared, parents_of, store_of
from pedfrac.storage.code_version import code_digest
from pedfrac.storage.inputs import Inputs
from pedfrac.storage.manifest import Artifact

FOLD_SPLIT = "fold-split"


def cut_folds(config: RetrainConfig, prepared: Prepared) -> list[Prepared]:
    """Return what is prepared with each of the folds held out in turn, if there are to be any."""
    return [
        prepared.model_copy(update={"split": _cut_fold(config, prepared, fold)})
        for fold in range(config.split.held_out)
    ]


def fold_in_words(config: RetrainConfig, prepared: Prepared) -> str:
    """Return what tells the trainings of folds apart; nothing for the bundle's own."""
    manifest = store_of(config).peek(prepared.split).manifest
    rules = manifest.config
    return f", fold {rules['fold'] + 1} of {rules['folds']}" if manifest.kind == FOLD_SPLIT else ""


def _cut_fold(config: RetrainConfig, prepared: Prepared, fold: int) -> str:
    store = store_of(config)
    parents = {"cohort": store.peek(prepared.cohort), "split": store.peek(prepared.split)}
    ages = config.cohort.ages

    def make(folder: Path) -> None:
        table = cohorts.load_cohort(parents["cohort"].path).table
        whole = split.load_split(parents["split"].path)
        made = splitting.cut_fold(whole, table, config.split, ages, fold)
        split.save_split(*made, folder)

    rules = {"folds", "validation_fraction", "balance_training", "seed"}
    settings = config.split.model_dump(mode="json", include=rules)
    settings |= {"fold": fold, "age_bounds": list(ages.bounds)}
    return store.produce(FOLD_SPLIT, make, config=settings, parents=parents).key


@dataclass(frozen=True)
class FoldScoring:
    """Scoring of the images that a fold holds out, by the bundle of its own networks.

    ``key``: under which the images with scores, calls and baselines will lie.
    """

    config: RetrainConfig
    prepared: Prepared
    bundle: str
    kind: ClassVar[str] = "fold-scores"

    @property
    def name(self) -> str:
        """Which fold it is, in words."""
        return fold_in_words(self.config, self.prepared).removeprefix(", ")

    @property
    def inputs(self) -> Inputs:
        """What the scores are made from."""
        return Inputs.of(self.kind, parents=self._from)

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
        parents = self._from

        def make(folder: Path) -> None:
            held_out = scored_test_images(self.config, parents, every=False)
            images = evaluations.call_images(
                held_out.scores, held_out.learned, held_out.bundle.scorers
            )
            images.to_parquet(folder / evaluations.PREDICTIONS, index=False)

        return store_of(self.config).produce(self.kind, make, parents=parents).key

    @property
    def _from(self) -> dict[str, Artifact]:
        return parents_of(store_of(self.config), self.prepared, bundle=self.bundle)


def pool_folds(config: RetrainConfig, scores: Sequence[str]) -> str:
    """Pool the held-out images of all folds in one table, and compute their metrics."""
    store = store_of(config)
    parents = {f"fold-{number}": store.peek(key) for number, key in enumerate(scores)}

    def make(folder: Path) -> None:
        folds = [pd.read_parquet(one.file(evaluations.PREDICTIONS)) for one in parents.values()]
        pooled = evaluations.pooled_metrics(folds, config.cohort.ages, config.evaluation)
        evaluations.save_evaluation(folder, *pooled)

    settings = config.evaluation.model_dump(mode="json")
    settings["age_bounds"] = list(config.cohort.age_bounds)
    sources = {"code": code_digest()}
    return store.produce("folds", make, config=settings, sources=sources, parents=parents).key
