"""Holding folds out in turn: cutting them, scoring each and pooling their images, as tasks."""

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac import pipeline
from pedfrac.config.retrain import RetrainConfig
from pedfrac.evaluation.evaluation import load_folds, summary_rows
from pedfrac.pipeline.keys import Prepared
from pedfrac.storage.inputs import Inputs


@task(name="cut folds", cache_policy=NO_CACHE)
def cut_folds(config: RetrainConfig, prepared: Prepared) -> list[Prepared]:
    """Return the keys of the prepared data of each fold; none without ``split.folds``."""
    return pipeline.cut_folds(config, prepared)


@task(name="score fold", cache_policy=NO_CACHE)
def score_fold(
    config: RetrainConfig, prepared: Prepared, bundle: str, expected: Inputs | None = None
) -> str:
    """Return the key of the scores of the images that a fold holds out.

    Raises PedfracError where the inputs are not the ``expected`` ones.
    """
    scoring = pipeline.FoldScoring(config, prepared, bundle)
    if expected:
        scoring.inputs.refuse_other(expected, scoring.name)
    return scoring.run()


@task(name="pool folds", cache_policy=NO_CACHE)
def pool_folds(config: RetrainConfig, scores: list[str]) -> str:
    """Return the key of all folds' scores and metrics; show the metrics by age group."""
    key = pipeline.pool_folds(config, scores)
    metrics = load_folds(pipeline.store_of(config).get(key).path)
    create_table_artifact(
        summary_rows(metrics),
        key="pooled-folds",
        description=f"Images held out from {metrics.folds} folds, pooled",
    )
    return key
