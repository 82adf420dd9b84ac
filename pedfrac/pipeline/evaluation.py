"""Steps from trained networks to metrics: bundle, evaluation, heat maps, disturbed images.

Their keys follow the code, not only what goes in: beside a training they cost little, and a metric
that is computed otherwise must not be taken for one that is there.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pedfrac.bundle.bundle import Bundle, BundleInfo, Network, write_bundle, write_info
from pedfrac.bundle.reference_profile import save_profile
from pedfrac.compute.devices import resolve_device
from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.training import ModelConfig
from pedfrac.data import split as data_split
from pedfrac.errors import PedfracError
from pedfrac.evaluation import evaluation as evaluations
from pedfrac.evaluation import robustness, shortcuts
from pedfrac.packs.pack import TEXT, Pack
from pedfrac.pipeline.keys import Prepared, Trained, interval_settings, parents_of, store_of
from pedfrac.scoring.scorer import GENERALIST, SPECIALIST, fit_scorers, select_networks
from pedfrac.scoring.studies import STUDY
from pedfrac.storage.code_version import code_digest
from pedfrac.storage.files import write_json
from pedfrac.storage.manifest import Artifact
from pedfrac.storage.store import ArtifactStore
from pedfrac.training.checkpoint import MAPS, MODEL, read_maps

SCORED = ("split", "fracture_pack", "age_pack")  # what images are scored from


def assemble_bundle(config: RetrainConfig, prepared: Prepared, trained: Trained) -> str:
    """Join the trained networks, with thresholds chosen on validation images."""
    store = store_of(config)
    models = {
        "age": store.peek(trained.age),
        "generalist": store.peek(trained.generalist),
        **{
            f"specialist-{name}": store.peek(key)
            for name, key in zip(config.cohort.ages.names, trained.specialists, strict=True)
        },
    }

    parents = models | {name: store.peek(getattr(prepared, name)) for name in SCORED}

    def make(folder: Path) -> None:
        rules = config.evaluation
        info = BundleInfo(
            age_bounds=config.cohort.age_bounds,
            fracture=_network(config, config.fracture.model).model_copy(
                update={"maps": read_maps(models["generalist"].file(MAPS))}
            ),
            age=_network(config, config.age.model),
            age_head=config.age.head,
            scorers={},
            views=rules.views,
            provenance={name: parent.key for name, parent in parents.items()},
        )
        write_bundle(folder, info, {name: model.file(MODEL) for name, model in models.items()})
        said = _validation_answers(config, folder, parents)
        selection = select_networks(said, len(info.ages), rules)
        scorers = fit_scorers(said, [one.choice for one in selection], rules)
        write_info(
            folder, info.model_copy(update={"scorers": scorers, "selection": tuple(selection)})
        )
        _write_profile(config, folder, parents)

    fitted = {
        *("threshold", "sensitivity", "fixed", "threshold_shrinkage", "selection_margin"),
        *("selection_patients", "abstention", "calibration", "study_score", "resamples"),
        *("seed", "views"),
    }
    settings = config.evaluation.model_dump(mode="json", include=fitted)
    settings["age_bounds"] = list(config.cohort.age_bounds)
    return store.produce(
        "bundle", make, config=settings, sources={"code": code_digest()}, parents=parents
    ).key


def evaluate_bundle(
    config: RetrainConfig, prepared: Prepared, bundle: str, folds: str | None = None
) -> str:
    """Score the test images and compute all metrics; those of pooled ``folds`` go beside them."""
    store = store_of(config)
    parents = parents_of(store, prepared, bundle=bundle, **({"folds": folds} if folds else {}))

    def make(folder: Path) -> None:
        images = scored_test_images(config, parents, every=True)
        metrics = evaluations.evaluate(
            images.scores,
            images.learned,
            config.cohort.ages,
            images.bundle.scorers,
            config.evaluation,
            images.companions,
            evaluations.load_folds(parents["folds"].path) if folds else None,
        )
        evaluations.save_evaluation(folder, images.scores, metrics)

    settings = config.evaluation.model_dump(mode="json")
    return store.produce(
        "evaluation", make, config=settings, sources={"code": code_digest()}, parents=parents
    ).key


def explain_bundle(config: RetrainConfig, prepared: Prepared, bundle: str, evaluation: str) -> str:
    """Write heat maps of each age group's test images, and how well they meet the fractures."""
    from pedfrac.explanation.explanation import (
        explain_group,  # matplotlib and grad-cam are slow to import
    )

    store = store_of(config)
    parents = _scored_and_packed(store, prepared, bundle, evaluation)

    def make(folder: Path) -> None:
        device = resolve_device(config.runtime.device)
        loaded = Bundle.load(parents["bundle"].path, device)
        pack = Pack.open(parents["fracture_pack"].path)
        predictions = evaluations.load_predictions(parents["evaluation"].path)
        for group in sorted(predictions["group"].unique().tolist()):
            images = predictions[predictions["group"] == group]
            explain_group(
                folder,
                config.cohort.ages.name(group),
                list(loaded.chosen(group).values()),
                pack,
                pack.rows(images["filestem"].tolist()),
                images["fracture_visible"].to_numpy(dtype=bool),
                images["bundle"].to_numpy(),
                loaded.scorers["bundle"].thresholds[group],
                config.explanation,
                device=device,
                evaluation=config.evaluation,
                finder=loaded.networks["generalist"],
            )

    settings = config.explanation.model_dump(mode="json") | interval_settings(config)
    return store.produce(
        "explanation", make, config=settings, sources={"code": code_digest()}, parents=parents
    ).key


def check_robustness(
    config: RetrainConfig, prepared: Prepared, bundle: str, evaluation: str
) -> str:
    """Score disturbed test images, and such without bones: robustness.json and shortcuts.json."""
    store = store_of(config)
    parents = _scored_and_packed(store, prepared, bundle, evaluation)

    def make(folder: Path) -> None:
        loaded = Bundle.load(parents["bundle"].path, resolve_device(config.runtime.device))
        pack = Pack.open(parents["fracture_pack"].path)
        images = evaluations.load_predictions(parents["evaluation"].path)
        images = images.iloc[robustness.choose_images(images["patient_id"], config.robustness)]
        rows, groups = pack.rows(images["filestem"].tolist()), images["group"].to_numpy()
        score = partial(loaded.probability, groups=groups)
        known = pack.images[rows], images["fracture_visible"], images["patient_id"]
        thresholds = np.array(loaded.scorers["bundle"].thresholds)[groups]
        disturbed = robustness.robustness_metrics(
            score, *known, thresholds, config.robustness, config.evaluation
        )
        texts = [pack.boxes_of(row, TEXT) for row in rows]
        boneless = shortcuts.shortcut_metrics(score, known[0], texts, *known[1:], config.evaluation)
        write_json(folder / "robustness.json", disturbed)
        write_json(folder / "shortcuts.json", boneless)

    settings = config.robustness.model_dump(mode="json") | interval_settings(config)
    return store.produce(
        "robustness", make, config=settings, sources={"code": code_digest()}, parents=parents
    ).key


def _scored_and_packed(
    store: ArtifactStore, prepared: Prepared, bundle: str, evaluation: str
) -> dict[str, Artifact]:
    """Return what the images of an evaluation can be asked anew with, by role."""
    keys = {"bundle": bundle, "evaluation": evaluation, "fracture_pack": prepared.fracture_pack}
    return {role: store.peek(key) for role, key in keys.items()}


class Scored(NamedTuple):
    """Test images with what a bundle says of them, and metadata of the images it learned from.

    ``companions``: images of the same studies that are left out of the test set, likewise scored,
    since a study is all of its images.
    """

    bundle: Bundle
    scores: pd.DataFrame
    learned: pd.DataFrame
    companions: pd.DataFrame


def scored_test_images(
    config: RetrainConfig, parents: dict[str, Artifact], *, every: bool
) -> Scored:
    """Score the test images of a bundle's split, and their companions.

    ``every`` specialist is asked, or those of an image's age groups alone. Raises PedfracError
    where the bundle's networks learned by another split.
    """
    bundle, by = parents["bundle"], parents["split"]
    if bundle.manifest.parents["split"].digest != by.digest:
        raise PedfracError(f"{bundle.key} did not learn by {by.key}")
    loaded = Bundle.load(bundle.path, resolve_device(config.runtime.device))
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


def _validation_answers(
    config: RetrainConfig, bundle: Path, parents: dict[str, Artifact]
) -> pd.DataFrame:
    """Return what generalist and own specialist say of each validation image, with its metadata.

    The trainings left that; with other views of the images the networks are asked anew.
    """
    split = data_split.load_split(parents["split"].path)
    pack = Pack.open(parents["fracture_pack"].path)
    images = split.images("validation")
    metadata = pack.index.set_index("filestem").loc[images].reset_index()
    metadata["group"] = config.cohort.ages.assign(metadata["age"])
    if config.evaluation.views != "one":
        loaded = Bundle.load(bundle, resolve_device(config.runtime.device))
        said = loaded.ask_packs(pack, Pack.open(parents["age_pack"].path), images)
        return metadata.join(said.drop(columns="group").set_index("filestem"), on="filestem")
    names = ["specialist-" + name for name in config.cohort.ages.names]
    columns = [GENERALIST, *(SPECIALIST.format(group) for group in range(len(names)))]
    for column, model in zip(columns, ["generalist", *names], strict=True):
        left = pd.read_csv(parents[model].file("validation.csv"), dtype={"filestem": str})
        metadata = metadata.join(left.set_index("filestem")["p_1"].rename(column), on="filestem")
    return metadata


def _write_profile(config: RetrainConfig, bundle: Path, parents: dict[str, Artifact]) -> None:
    """Write what images and scores are like, so that others can be compared with them later."""
    from pedfrac.monitoring.profile_builder import (
        make_profile,  # the readers of DICOM are slow to import
    )

    loaded = Bundle.load(bundle, resolve_device(config.runtime.device))
    split = data_split.load_split(parents["split"].path)
    fracture, age = (Pack.open(parents[name].path) for name in ("fracture_pack", "age_pack"))
    images = split.images("validation"), split.images("train")
    save_profile(bundle, make_profile(loaded, fracture, age, *images))


def _network(config: RetrainConfig, model: ModelConfig) -> Network:
    # where the starting weights lay is no part of a finished network
    return Network(
        model=model.model_copy(update={"weights": "none"}), preparation=config.preparation(model)
    )
