"""The step that explains a bundle's scores of the test images by heat maps.

Its key follows the code, as that of the evaluation does.
"""

from pathlib import Path

from pedfrac.age_groups import AgeGroups
from pedfrac.bundle.bundle import Bundle
from pedfrac.compute.devices import resolve_device
from pedfrac.config.base import Numbers, Section
from pedfrac.config.evaluation import ExplanationConfig, IntervalConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.evaluation import evaluation as evaluations
from pedfrac.packs.pack import Pack
from pedfrac.pipeline.keys import Prepared, scored_and_packed, store_of
from pedfrac.pipeline.maker import Given, Maker

CODE = (
    *("age_groups", "bundle", "compute.devices", "data", "evaluation", "explanation", "imaging"),
    *("models", "packs", "pipeline.explanation", "scoring", "statistics"),
)


class ExplanationSettings(Section):
    """What heat maps are made by; the groups have folders by the names of their ages."""

    age_bounds: Numbers
    explanation: ExplanationConfig
    intervals: IntervalConfig


def explain_bundle(config: RetrainConfig, prepared: Prepared, bundle: str, evaluation: str) -> str:
    """Write heat maps of each age group's test images, and how well they match the fractures."""
    store = store_of(config)
    settings = ExplanationSettings(
        age_bounds=config.cohort.age_bounds,
        explanation=config.explanation,
        intervals=config.evaluation.part(IntervalConfig),
    )
    parents = scored_and_packed(store, prepared, bundle, evaluation)
    return EXPLANATION.produce(store, settings, parents, config.runtime).key


def _make(folder: Path, given: Given[ExplanationSettings]) -> None:
    from pedfrac.explanation.explanation import (
        explain_group,  # matplotlib and grad-cam are slow to import
    )

    settings, parents = given.settings, given.parents
    ages, device = AgeGroups(settings.age_bounds), resolve_device(given.runtime.device)
    loaded = Bundle.load(parents["bundle"].path, device)
    pack = Pack.open(parents["fracture_pack"].path)
    predictions = evaluations.load_predictions(parents["evaluation"].path)
    for group in sorted(predictions["group"].unique().tolist()):
        images = predictions[predictions["group"] == group]
        explain_group(
            folder,
            ages.name(group),
            list(loaded.chosen(group).values()),
            pack,
            pack.rows(images["filestem"].tolist()),
            images["fracture_visible"].to_numpy(dtype=bool),
            images["bundle"].to_numpy(),
            loaded.scorers["bundle"].thresholds[group],
            settings.explanation,
            device=device,
            evaluation=settings.intervals,
            finder=loaded.networks["generalist"],
        )


EXPLANATION = Maker("explanation", _make, CODE)
