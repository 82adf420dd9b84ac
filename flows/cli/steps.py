"""The steps before and after training, run by a command itself, with bars in the terminal.

Not here: the same steps as tasks of a flow (flows.preparation, flows.retrain).
"""

from collections.abc import Sequence

from pedfrac import pipeline
from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.training import ModelConfig
from pedfrac.pipeline.keys import Prepared, Trained
from tasks.bar import progress_bar


def read_records(config: RetrainConfig) -> str:
    """Read and check the data set; return the key of the records."""
    with progress_bar("reading images") as show:
        return pipeline.read_records(config, lambda done, total: show(done, total, ""))


def pack_images(config: RetrainConfig, records: str, model: ModelConfig) -> str:
    """Prepare all images for a model; return the key of the pack."""
    with progress_bar(f"packing images at {model.size} px") as show:
        return pipeline.pack_images(
            config, records, model, lambda done, total: show(done, total, "")
        )


def prepare(config: RetrainConfig, *, packed: bool = True) -> Prepared:
    """Read, select, split and pack; return the keys. What is there is not made again.

    Without ``packed``, packs are only named: under which key they lie, or will.
    """
    records = read_records(config)
    cohort = pipeline.select_cohort(config, records)
    pack = pack_images if packed else pipeline.pack_key
    return Prepared(
        records=records,
        cohort=cohort,
        split=pipeline.split_patients(config, cohort),
        fracture_pack=pack(config, records, config.fracture.model),
        age_pack=pack(config, records, config.age.model),
    )


def evaluate(config: RetrainConfig, prepared: Prepared) -> tuple[str, str]:
    """Return the keys of the bundle of all trained networks and of its evaluation.

    With folds, the images that each holds out are scored and pooled, too. Raises PedfracError that
    names the networks which are not trained yet.
    """
    folds = pipeline.cut_folds(config, prepared)
    trained, *of_folds = pipeline.find_trained(config, [prepared, *folds])
    with progress_bar("assembling the bundle"):
        bundle = pipeline.assemble_bundle(config, prepared, trained)
    pooled = _score_folds(config, folds, of_folds) if folds else None
    with progress_bar("scoring the test images"):
        return bundle, pipeline.evaluate_bundle(config, prepared, bundle, pooled)


def _score_folds(
    config: RetrainConfig, folds: Sequence[Prepared], trained: Sequence[Trained]
) -> str:
    scores: list[str] = []
    with progress_bar("scoring the images that folds hold out") as show:
        for fold, networks in zip(folds, trained, strict=True):
            show(len(scores), len(folds), "")
            bundle = pipeline.assemble_bundle(config, fold, networks)
            scores.append(pipeline.FoldScoring(config, fold, bundle).run())
    return pipeline.pool_folds(config, scores)


def explain(config: RetrainConfig, prepared: Prepared, bundle: str, evaluation: str) -> str:
    """Write the heat maps of the test images; return their key."""
    with progress_bar("drawing heat maps"):
        return pipeline.explain_bundle(config, prepared, bundle, evaluation)
