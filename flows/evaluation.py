"""Evaluation and explanation by themselves, for models that are trained or still to be."""

from pathlib import Path

from prefect import flow

from flows.infrastructure.forms import Settings
from flows.preparation import prepare
from flows.retrain import train_and_evaluate
from pedfrac import pipeline
from pedfrac.pipeline.keys import Evaluated


@flow(name="evaluate")
def evaluate(config: Settings) -> Evaluated:
    """Score the test images with the trained models, training what is missing; return the keys."""
    prepared = prepare(config, age_pack=False)
    return train_and_evaluate(config, prepared, None)[1]


@flow(name="explain")
def explain(config: Settings) -> tuple[Evaluated, Path]:
    """Write the heat maps of the test images; return the keys and the folder of the pictures."""
    evaluated = evaluate(config)
    return evaluated, pipeline.publish_heat_maps(config, evaluated.explanation)
