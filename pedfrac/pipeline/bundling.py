"""The step that joins trained networks in a bundle, with all that is fitted on validation images.

Its key follows the code, not only what goes in: beside a training it costs little, and a threshold
that is chosen otherwise must not be taken for one that is there.
"""

from pathlib import Path

import pandas as pd

from pedfrac.bundle.bundle import Bundle, BundleInfo, Network, write_bundle, write_info
from pedfrac.bundle.reference_profile import save_profile
from pedfrac.compute.devices import resolve_device
from pedfrac.config.base import Numbers, Section
from pedfrac.config.evaluation import ScoringConfig
from pedfrac.config.retrain import RetrainConfig, StudyConfig
from pedfrac.config.training import HeadKind, ModelConfig
from pedfrac.data import split as data_split
from pedfrac.packs.pack import Pack
from pedfrac.pipeline.keys import Prepared, Trained, store_of
from pedfrac.pipeline.maker import Given, Maker
from pedfrac.scoring.scorer import GENERALIST, SPECIALIST, fit_scorers, select_networks
from pedfrac.training.checkpoint import MAPS, MODEL, read_maps

SCORED = ("split", "fracture_pack", "age_pack")  # what images are scored from
CODE = (
    *("age_groups", "bundle", "compute.devices", "data", "imaging", "models"),
    *("monitoring.profile_builder", "packs", "pipeline.bundling", "scoring", "statistics"),
    "training.checkpoint",
)


class BundleSettings(Section):
    """What a bundle is made by: the networks as they are built, and how they are scored."""

    age_bounds: Numbers
    age_head: HeadKind
    fracture: Network
    age: Network
    scoring: ScoringConfig


def assemble_bundle(config: RetrainConfig, prepared: Prepared, trained: Trained) -> str:
    """Join the trained networks, with thresholds chosen on validation images; return the key."""
    store = store_of(config)
    models = {
        "age": store.peek(trained.age),
        "generalist": store.peek(trained.generalist),
        **{
            f"specialist-{name}": store.peek(key)
            for name, key in zip(config.cohort.ages.names, trained.specialists, strict=True)
        },
    }
    settings = BundleSettings(
        age_bounds=config.cohort.age_bounds,
        age_head=config.age.head,
        fracture=_network(config, config.fracture.model),
        age=_network(config, config.age.model),
        scoring=config.evaluation.part(ScoringConfig),
    )
    parents = models | {name: store.peek(getattr(prepared, name)) for name in SCORED}
    return BUNDLE.produce(store, settings, parents, config.runtime).key


def _make(folder: Path, given: Given[BundleSettings]) -> None:
    settings, rules = given.settings, given.settings.scoring
    info = BundleInfo(
        age_bounds=settings.age_bounds,
        fracture=settings.fracture.model_copy(
            update={"maps": read_maps(given.parents["generalist"].file(MAPS))}
        ),
        age=settings.age,
        age_head=settings.age_head,
        scorers={},
        views=rules.views,
        provenance={name: parent.key for name, parent in given.parents.items()},
    )
    models = {name: one for name, one in given.parents.items() if name not in SCORED}
    write_bundle(folder, info, {name: model.file(MODEL) for name, model in models.items()})
    said = _validation_answers(folder, info, given)
    selection = select_networks(said, len(info.ages), rules)
    scorers = fit_scorers(said, [one.choice for one in selection], rules)
    write_info(folder, info.model_copy(update={"scorers": scorers, "selection": tuple(selection)}))
    _write_profile(folder, given)


BUNDLE = Maker("bundle", _make, CODE)


def _validation_answers(
    bundle: Path, info: BundleInfo, given: Given[BundleSettings]
) -> pd.DataFrame:
    """Return the scores of generalist and own specialist for each validation image, with metadata.

    The trainings saved them; with other views the networks score the images again.
    """
    parents = given.parents
    split = data_split.load_split(parents["split"].path)
    pack = Pack.open(parents["fracture_pack"].path)
    images = split.images("validation")
    metadata = pack.index.set_index("filestem").loc[images].reset_index()
    metadata["group"] = info.ages.assign(metadata["age"])
    if info.views != "one":
        loaded = Bundle.load(bundle, resolve_device(given.runtime.device))
        said = loaded.ask_packs(pack, Pack.open(parents["age_pack"].path), images)
        return metadata.join(said.drop(columns="group").set_index("filestem"), on="filestem")
    names = ["specialist-" + name for name in info.ages.names]
    columns = [GENERALIST, *(SPECIALIST.format(group) for group in range(len(names)))]
    for column, model in zip(columns, ["generalist", *names], strict=True):
        left = pd.read_csv(parents[model].file("validation.csv"), dtype={"filestem": str})
        metadata = metadata.join(left.set_index("filestem")["p_1"].rename(column), on="filestem")
    return metadata


def _write_profile(bundle: Path, given: Given[BundleSettings]) -> None:
    """Write what images and scores are like, so that others can be compared with them later."""
    from pedfrac.monitoring.profile_builder import (
        make_profile,  # the readers of DICOM are slow to import
    )

    parents = given.parents
    loaded = Bundle.load(bundle, resolve_device(given.runtime.device))
    split = data_split.load_split(parents["split"].path)
    fracture, age = (Pack.open(parents[name].path) for name in ("fracture_pack", "age_pack"))
    images = split.images("validation"), split.images("train")
    save_profile(bundle, make_profile(loaded, fracture, age, *images))


def _network(config: StudyConfig, model: ModelConfig) -> Network:
    # where the starting weights lay is no part of a finished network
    return Network(
        model=model.model_copy(update={"weights": "none"}), preparation=config.preparation(model)
    )
