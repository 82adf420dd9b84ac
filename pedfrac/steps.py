"""Each step of a retraining, from the configuration and its parents' keys to an artifact's key.

What a step computes stands in its own module; here is only what goes in, under which key it lies,
and which files it leaves. No Prefect: a worker or a notebook may call any step by itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pedfrac import cohort as cohorts
from pedfrac import evaluation as evaluations
from pedfrac import findings, inputs, robustness, shortcuts, splitting
from pedfrac import records as record_tables
from pedfrac.bundle import (
    FRACTURE_CLASSES,
    Bundle,
    BundleInfo,
    Network,
    write_bundle,
    write_info,
)
from pedfrac.checklist import write_checklist
from pedfrac.config import ModelConfig, RetrainConfig, TrainingConfig
from pedfrac.errors import PedfracError
from pedfrac.heads import Classes, Head, make_head
from pedfrac.metrics import confusion
from pedfrac.model_card import write_model_card
from pedfrac.models import FilmClassifier, build_model, resolve_device, resolve_devices
from pedfrac.packing import TEXT, Pack, build_pack
from pedfrac.protocols import published_references
from pedfrac.scoring import GENERALIST, SPECIALIST, fit_scorers, select_networks
from pedfrac.storage import (
    Artifact,
    ArtifactStore,
    code_digest,
    export,
    file_hash,
    write_json,
)
from pedfrac.training import (
    MODEL,
    Epoch,
    FilmSet,
    OnEpoch,
    TrainingData,
    load_weights,
    seed_weights,
    train_on,
)

Progress = Callable[[int, int], None]

PAGES = ("report.html", "model_card.md", "checklist.md", findings.METRICS, findings.SCHEMA)
FOLD_SPLIT = "fold-split"
SCORED = ("split", "fracture_pack", "age_pack")  # what films are scored from


class Prepared(BaseModel):
    """Keys of all that is needed before the first training."""

    model_config = ConfigDict(frozen=True)
    records: str
    cohort: str
    split: str
    fracture_pack: str
    age_pack: str


class Trained(BaseModel):
    """Keys of all trained models; specialists are ordered by age group."""

    model_config = ConfigDict(frozen=True)
    age: str
    generalist: str
    specialists: tuple[str, ...]


class Evaluated(BaseModel):
    """Keys of the bundle and of what is known about it."""

    model_config = ConfigDict(frozen=True)
    bundle: str
    evaluation: str
    explanation: str
    robustness: str


def store_of(config: RetrainConfig) -> ArtifactStore:
    """Return the store that the configuration names."""
    return ArtifactStore(config.artifact_root)


def read_records(config: RetrainConfig, progress: Progress | None = None) -> str:
    """Read and check the data set."""

    def make(folder: Path) -> None:
        data = inputs.fetched(config.data)
        records = record_tables.read_records(data, config.runtime.workers, progress)
        record_tables.save_records(records, folder)

    settings = config.data.model_dump(mode="json") | {"root": inputs.origin(config.data)}
    sources = inputs.fingerprint(config.data)
    return store_of(config).produce("records", make, config=settings, sources=sources).key


def count_listed(config: RetrainConfig) -> dict[str, Any]:
    """Return the counts of the sound rows of dataset.csv, whether their images are there or not.

    Films, patients and labels, and ``groups`` before and after the exclusions of the cohort.
    """
    data = config.data.model_copy(update={"images": False})
    records = record_tables.read_records(inputs.fetched(data))
    counts = cohorts.count_films(records.table) | {
        name: records.summary()[name] for name in ("studies", "metal")
    }
    return counts | {"groups": cohorts.make_cohort(records, config.cohort).groups}


def select_cohort(config: RetrainConfig, records: str) -> str:
    """Take out the films that the configuration excludes."""
    store = store_of(config)
    parent = store.peek(records)

    def make(folder: Path) -> None:
        cohorts.save_cohort(
            cohorts.make_cohort(record_tables.load_records(parent.path), config.cohort), folder
        )

    settings = config.cohort.model_dump(mode="json")
    return store.produce("cohort", make, config=settings, parents={"records": parent}).key


def split_patients(config: RetrainConfig, cohort: str) -> str:
    """Divide the patients, each keeping the place that an earlier split gave it."""
    store = store_of(config)
    parent = store.peek(cohort)
    parents = {"cohort": parent}
    earlier = _latest_split(store, parent, config)
    if earlier and earlier.manifest.parents["cohort"].digest == parent.digest:
        return store.get(earlier.key).key
    if earlier:
        parents["previous"] = earlier

    def make(folder: Path) -> None:
        table = cohorts.load_cohort(parent.path).table
        previous = _previous_table(config, earlier)
        made = splitting.make_split(table, config.split, config.cohort.ages, previous)
        splitting.save_split(*made, folder)

    return store.produce(
        "split",
        make,
        config=_split_settings(config),
        sources=_split_files(config),
        parents=parents,
    ).key


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
        whole = splitting.load_split(parents["split"].path)
        made = splitting.cut_fold(whole, table, config.split, ages, fold)
        splitting.save_split(*made, folder)

    rules = {"folds", "validation_fraction", "balance_training", "seed"}
    settings = config.split.model_dump(mode="json", include=rules)
    settings |= {"fold": fold, "age_bounds": list(ages.bounds)}
    return store.produce(FOLD_SPLIT, make, config=settings, parents=parents).key


def pack_films(
    config: RetrainConfig, records: str, model: ModelConfig, progress: Progress | None = None
) -> str:
    """Prepare all usable films for a model. Models of one size share the pack."""
    if not config.data.images:
        raise PedfracError("data.images is off: films cannot be packed without looking at them")
    store = store_of(config)
    parent = store.peek(records)
    preparation = config.preparation(model)

    def make(folder: Path) -> None:
        read = record_tables.load_records(parent.path)
        build_pack(
            folder,
            read.table,
            read.boxes,
            Path(inputs.fetched(config.data).root),
            preparation,
            config.runtime.workers,
            progress,
        )

    settings = preparation.model_dump(mode="json")
    return store.produce(
        "pack", make, config=settings, parents={"records": parent}, resumable=True
    ).key


def age_training(config: RetrainConfig, prepared: Prepared) -> "Training":
    """Return the training of the network that tells the age group."""
    ages = config.cohort.ages
    name = "age" + fold_in_words(config, prepared)

    def films(pack: Pack) -> Films:
        years = pack.index["age"].to_numpy(dtype=np.float64)
        labels = ages.assign(years)
        return Films(name, ages.names, labels, labels >= 0, years)

    return Training(
        config,
        name,
        kind="age-model",
        films=films,
        parents=_pack_and_split(config, prepared.age_pack, prepared.split),
        model=config.age.model,
        training=config.age.training,
        head=partial(make_head, config.age.head, ages),
        settings={"age_bounds": list(ages.bounds), "role": "age", "head": config.age.head},
    )


def fracture_training(
    config: RetrainConfig,
    prepared: Prepared,
    group: int | None = None,
    generalist: str | None = None,
) -> "Training":
    """Return the training of an age group's fracture network, or of all ages where it is None.

    A specialist that starts from the generalist needs its key.
    """
    ages = config.cohort.ages
    name = "generalist" if group is None else ages.name(group)
    name += fold_in_words(config, prepared)
    parents = _pack_and_split(config, prepared.fracture_pack, prepared.split)
    if group is not None and config.fracture.specialist.start == "generalist":
        if generalist is None:
            raise PedfracError(f"{name}: starts from the generalist, which is not trained yet")
        parents["start"] = store_of(config).peek(generalist)

    def films(pack: Pack) -> Films:
        groups = ages.assign(pack.index["age"])
        chosen = groups >= 0 if group is None else groups == group
        labels = pack.index["fracture_visible"].to_numpy().astype("int64")
        return Films(name, FRACTURE_CLASSES, labels, chosen)

    bounds = ages.bounds if group is None else ages.bounds[group : group + 2]
    # whether the last bound is inside depends on the group being the last
    last = group is None or group == len(ages) - 1
    return Training(
        config,
        name,
        kind="fracture-model",
        films=films,
        parents=parents,
        model=config.fracture.model,
        training=config.fracture.training if group is None else config.fracture.specialist_training,
        head=partial(Classes, len(FRACTURE_CLASSES)),
        settings={"age_bounds": list(bounds), "last_group": last, "role": "fracture"},
    )


def assemble_bundle(config: RetrainConfig, prepared: Prepared, trained: Trained) -> str:
    """Join the trained networks, with thresholds chosen on validation films."""
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
            fracture=_network(config, config.fracture.model),
            age=_network(config, config.age.model),
            age_head=config.age.head,
            scorers={},
            views=rules.views,
            provenance={name: parent.key for name, parent in parents.items()},
        )
        write_bundle(folder, info, {name: model.file(MODEL) for name, model in models.items()})
        said = _validation_answers(config, folder, parents)
        selection = select_networks(said, len(info.ages), rules)
        scorers = fit_scorers(said, [one["choice"] for one in selection], rules)
        write_info(
            folder, info.model_copy(update={"scorers": scorers, "selection": tuple(selection)})
        )

    fitted = {
        *("threshold", "sensitivity", "fixed", "threshold_shrinkage", "selection_margin"),
        *("selection_patients", "abstention", "calibration", "study_score", "interval"),
        *("resamples", "seed", "views"),
    }
    settings = config.evaluation.model_dump(mode="json", include=fitted)
    settings["age_bounds"] = list(config.cohort.age_bounds)
    return store.produce("bundle", make, config=settings, parents=parents).key


@dataclass(frozen=True)
class FoldScoring:
    """The scoring of the films that a fold holds out, by the bundle of its own networks; not begun.

    ``key``: under which the films with scores, calls and baselines will lie.
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
    def key(self) -> str:
        """The key of the scores, known before they are made."""
        return store_of(self.config).key(self.kind, config={}, parents=self._from)

    @property
    def done(self) -> bool:
        """Whether the scores are in the store."""
        return store_of(self.config).exists(self.key)

    def run(self) -> str:
        """Score and call the films; return the key."""
        parents = self._from

        def make(folder: Path) -> None:
            loaded, predictions, learned = _scored(self.config, parents, every=False)
            films = evaluations.call_films(predictions, learned, loaded.scorers)
            films.to_parquet(folder / evaluations.PREDICTIONS, index=False)

        return store_of(self.config).produce(self.kind, make, config={}, parents=parents).key

    @property
    def _from(self) -> dict[str, Artifact]:
        return _parents(store_of(self.config), self.prepared, bundle=self.bundle)


def pool_folds(config: RetrainConfig, scores: Sequence[str]) -> str:
    """Pool the held-out films of all folds in one table, and compute their figures."""
    store = store_of(config)
    parents = {f"fold-{number}": store.peek(key) for number, key in enumerate(scores)}

    def make(folder: Path) -> None:
        folds = [pd.read_parquet(one.file(evaluations.PREDICTIONS)) for one in parents.values()]
        pooled = evaluations.pooled_figures(folds, config.cohort.ages, config.evaluation)
        evaluations.save_evaluation(folder, *pooled)

    settings = config.evaluation.model_dump(mode="json")
    settings["age_bounds"] = list(config.cohort.age_bounds)
    return store.produce("folds", make, config=settings, parents=parents).key


def evaluate_bundle(
    config: RetrainConfig, prepared: Prepared, bundle: str, folds: str | None = None
) -> str:
    """Score the test films and compute all figures; those of pooled ``folds`` stand beside them."""
    store = store_of(config)
    parents = _parents(store, prepared, bundle=bundle, **({"folds": folds} if folds else {}))

    def make(folder: Path) -> None:
        loaded, predictions, learned = _scored(config, parents, every=True)
        figures = evaluations.evaluate(
            predictions,
            learned,
            config.cohort.ages,
            loaded.scorers,
            config.evaluation,
        )
        if folds:
            figures["folds"] = parents["folds"].read_json(evaluations.FIGURES)
        evaluations.save_evaluation(folder, predictions, figures)

    settings = config.evaluation.model_dump(mode="json")
    return store.produce("evaluation", make, config=settings, parents=parents).key


def explain_bundle(config: RetrainConfig, prepared: Prepared, bundle: str, evaluation: str) -> str:
    """Write heat maps of each age group's test films, and how well they meet the fractures."""
    from pedfrac.explanation import explain_group  # matplotlib and grad-cam are slow to import

    store = store_of(config)
    parents = {
        "bundle": store.peek(bundle),
        "evaluation": store.peek(evaluation),
        "fracture_pack": store.peek(prepared.fracture_pack),
    }

    def make(folder: Path) -> None:
        device = resolve_device(config.runtime.device)
        loaded = Bundle.load(parents["bundle"].path, device)
        pack = Pack.open(parents["fracture_pack"].path)
        predictions = evaluations.load_evaluation(parents["evaluation"].path)[0]
        for group in sorted(predictions["group"].unique().tolist()):
            films = predictions[predictions["group"] == group]
            explain_group(
                folder,
                config.cohort.ages.name(group),
                list(loaded.chosen(group).values()),
                pack,
                pack.rows(films["filestem"].tolist()),
                films["fracture_visible"].to_numpy(dtype=bool),
                films["bundle"].to_numpy(),
                loaded.scorers["bundle"].thresholds[group],
                config.explanation,
                device=device,
                evaluation=config.evaluation,
            )

    settings = config.explanation.model_dump(mode="json") | _intervals(config)
    return store.produce("explanation", make, config=settings, parents=parents).key


def check_robustness(
    config: RetrainConfig, prepared: Prepared, bundle: str, evaluation: str
) -> str:
    """Score disturbed test films, and such without bones: robustness.json and shortcuts.json."""
    store = store_of(config)
    parents = {
        "bundle": store.peek(bundle),
        "evaluation": store.peek(evaluation),
        "fracture_pack": store.peek(prepared.fracture_pack),
    }

    def make(folder: Path) -> None:
        loaded = Bundle.load(parents["bundle"].path, resolve_device(config.runtime.device))
        pack = Pack.open(parents["fracture_pack"].path)
        films = evaluations.load_evaluation(parents["evaluation"].path)[0]
        films = films.iloc[robustness.choose_films(films["patient_id"], config.robustness)]
        rows, groups = pack.rows(films["filestem"].tolist()), films["group"].to_numpy()
        score = partial(loaded.probability, groups=groups)
        known = pack.images[rows], films["fracture_visible"], films["patient_id"]
        thresholds = np.array(loaded.scorers["bundle"].thresholds)[groups]
        disturbed = robustness.robustness_figures(
            score, *known, thresholds, config.robustness, config.evaluation
        )
        texts = [pack.boxes_of(row, TEXT) for row in rows]
        boneless = shortcuts.shortcut_figures(score, known[0], texts, *known[1:], config.evaluation)
        write_json(folder / "robustness.json", disturbed)
        write_json(folder / "shortcuts.json", boneless)

    settings = config.robustness.model_dump(mode="json") | _intervals(config)
    return store.produce("robustness", make, config=settings, parents=parents).key


def write_report(
    config: RetrainConfig,
    prepared: Prepared,
    trained: Trained,
    evaluated: Evaluated,
    provenance: dict[str, str],
) -> str:
    """Write the page that people read."""
    from pedfrac import report  # matplotlib is slow to import

    store = store_of(config)
    names = ["age", "generalist", *config.cohort.ages.names]
    keys = [trained.age, trained.generalist, *trained.specialists]
    models = {name: store.peek(key) for name, key in zip(names, keys, strict=True)}
    parents = _parents(store, prepared, **evaluated.model_dump())

    def make(folder: Path) -> None:
        sources = provenance | {name: parent.key for name, parent in parents.items()}
        content = _findings(config, parents, models, sources)
        explained = parents["explanation"].path
        montages = {name: explained / name / "montage.png" for name in content["explanation"]}
        found = findings.write_findings(folder, content)
        write_model_card(folder / "model_card.md", found)
        write_checklist(folder / "checklist.md", found)
        report.write_report(folder / "report.html", found, montages)

    settings = config.model_dump(mode="json", exclude={"runtime", "artifacts", "results"})
    parents_of_page = parents | {f"model-{name}": model for name, model in models.items()}
    return store.produce(
        "report",
        make,
        config=settings,
        sources=provenance | {"code": code_digest()},  # pages cost little: they follow the code
        parents=parents_of_page,
    ).key


def _findings(
    config: RetrainConfig,
    parents: dict[str, Artifact],
    models: dict[str, Artifact],
    sources: dict[str, str],
) -> dict[str, Any]:
    """Return the content of metrics.json, from what the steps left."""
    bundle = BundleInfo.model_validate(parents["bundle"].read_json("bundle.json"))
    explanation = parents["explanation"]
    chosen = zip(config.cohort.ages.names, bundle.selection, strict=True)
    return {
        "title": "Retraining of fracture classifiers",
        "cohort": parents["cohort"].read_json("cohort.json"),
        "records": parents["records"].read_json("summary.json"),
        "split": parents["split"].read_json("split.json"),
        "training": {
            name: {part: model.read_json(f"{part}.json") for part in ("history", "summary")}
            for name, model in models.items()
        },
        "selection": [{"name": name, **why} for name, why in chosen],
        **parents["evaluation"].read_json("figures.json"),
        "explanation": {
            name: explanation.read_json(f"{name}/figures.json")
            for name in config.cohort.ages.names
            if (explanation.path / name / "figures.json").is_file()
        },
        "robustness": _if_films(parents["robustness"].read_json("robustness.json")),
        "shortcuts": _if_films(parents["robustness"].read_json("shortcuts.json")),
        "published": published_references(),
        "config": config.model_dump(mode="json", exclude={"runtime"}),
        "provenance": sources | {f"model {name}": model.key for name, model in models.items()},
    }


def _if_films(figures: dict[str, Any]) -> dict[str, Any] | None:
    return figures if figures["films"] else None


def publish_results(config: RetrainConfig, evaluated: Evaluated, report: str) -> str:
    """Copy pages, heat maps, figures and bundle to the results folder, if there is to be one.

    The artifacts stay what they are: the copies are for people, not for later steps. Returns where
    the report lies.
    """
    store = store_of(config)
    if not config.results:
        return f"{store.place(report)}/report.html"
    results = Path(config.results)
    publish_heat_maps(config, evaluated.explanation)
    export(store.get(evaluated.bundle).path, results / "bundle")
    export(store.get(evaluated.evaluation).path, results / "evaluation")
    for name in PAGES:
        export(store.get(report).file(name), results / name)
    return str(results / "report.html")


def publish_heat_maps(config: RetrainConfig, explanation: str) -> Path:
    """Return where the heat maps lie, a folder a group: copied to the results, if there are any."""
    made = store_of(config).get(explanation).path
    if not config.results:
        return made
    pictures = Path(config.results) / "gradcam_results"
    export(made, pictures)
    return pictures


def finished_retraining(config: RetrainConfig) -> tuple[dict[str, Any], str] | None:
    """Return what a retraining of this very data, configuration and code left, and its day.

    None where there was none, or where its report is gone.
    """
    store = store_of(config)
    key = store.key("retraining", **_retraining_inputs(config))
    if not store.exists(key) or (found := store.find(key)) is None:
        return None
    left: dict[str, Any] = found.read_json("retraining.json")
    return (left, found.manifest.created) if store.exists(left["report_key"]) else None


def record_retraining(config: RetrainConfig, left: dict[str, Any]) -> None:
    """Keep what a finished retraining left, for the next of the same data, configuration, code."""
    store_of(config).produce(
        "retraining",
        lambda folder: write_json(folder / "retraining.json", left),
        **_retraining_inputs(config),
    )


def headline_figures(config: RetrainConfig, evaluated: Evaluated) -> dict[str, float | None]:
    """Return the figures of each age group's models on the test films, by flat names."""
    figures = store_of(config).get(evaluated.evaluation).read_json("figures.json")
    return {
        f"test.{group['name']}.{model.replace(' ', '_')}.{figure}": values[figure]["value"]
        for group in figures["groups"]
        for model, values in group["models"].items()
        for figure in ("auroc", "average_precision", "sensitivity", "specificity", "accuracy", "f1")
    }


def validation_confusion(config: RetrainConfig, model: str) -> list[list[int]]:
    """Return the confusion matrix (rows: truth) of a trained model on its validation films."""
    validation = pd.read_csv(store_of(config).get(model).file("validation.csv"))
    probabilities = validation.filter(regex=r"^p_\d+$").to_numpy()
    return confusion(
        validation["truth"].to_numpy(), probabilities.argmax(axis=1), probabilities.shape[1]
    )


class Films(NamedTuple):
    """Which films of a pack a model learns from, and what they are: arrays over the whole pack."""

    name: str
    classes: Sequence[str]
    labels: NDArray[np.int64]
    chosen: NDArray[np.bool_]
    years: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Training:
    """A training that is not begun: what goes in, and the key under which its model will lie.

    ``films`` chooses from the pack, which is not opened before the training runs; ``head`` makes
    the network's head.
    """

    config: RetrainConfig
    name: str
    kind: str
    films: Callable[[Pack], Films]
    parents: dict[str, Artifact]
    model: ModelConfig
    training: TrainingConfig
    head: Callable[[], Head]
    settings: dict[str, Any]

    @property
    def key(self) -> str:
        """The key of the model, known before it is trained."""
        return store_of(self.config).key(self.kind, **self._inputs)

    @property
    def done(self) -> bool:
        """Whether the model is in the store."""
        return store_of(self.config).exists(self.key)

    def run(
        self,
        on_epoch: OnEpoch = lambda epoch: None,
        before_publishing: Callable[[], None] = lambda: None,
    ) -> str:
        """Train, or go on where an earlier try was killed; return the key.

        ``before_publishing`` is called when all is computed, and may raise to leave it unpublished.
        """
        store = store_of(self.config)

        def make(folder: Path) -> None:
            parents, runtime = self.parents, self.config.runtime
            data = _training_data(self.films, parents["pack"], parents["split"])
            start = parents["start"].file(MODEL) if "start" in parents else None
            build = partial(_network_to_train, self.model, self.head, self.training.seed, start)
            devices = resolve_devices(runtime.device, runtime.devices)

            def keep(epoch: Epoch) -> None:
                # first of all, since being told of an epoch may end the training
                store.checkpoint(folder)
                on_epoch(epoch)

            train_on(devices, build, data, self.training, folder, on_epoch=keep)
            before_publishing()

        return store.produce(self.kind, make, resumable=True, **self._inputs).key

    @cached_property
    def _inputs(self) -> dict[str, Any]:
        # kept, since a file of weights may be large and the key is asked for at each try
        weights = Path(self.model.weights)
        return {
            "config": self.settings
            | {
                "model": self.model.model_dump(mode="json"),
                "training": self.training.model_dump(mode="json"),
            },
            "sources": {"weights": file_hash(weights)} if weights.is_file() else {},
            "parents": self.parents,
        }


def _intervals(config: RetrainConfig) -> dict[str, Any]:
    """Return how intervals are made, as far as a step's key depends on it."""
    settings = config.evaluation.model_dump(include={"interval", "resamples", "seed"})
    return {f"interval_{name}": value for name, value in settings.items()}


def _retraining_inputs(config: RetrainConfig) -> dict[str, Any]:
    elsewhere = {"artifacts", "results", "runtime", "tracking"}
    return {
        "config": config.model_dump(mode="json", exclude=elsewhere),
        "sources": inputs.fingerprint(config.data) | {"code": code_digest()},
    }


def _pack_and_split(config: RetrainConfig, pack: str, split: str) -> dict[str, Artifact]:
    store = store_of(config)
    return {"pack": store.peek(pack), "split": store.peek(split)}


def _training_data(
    films: Callable[[Pack], Films], packed: Artifact, parted: Artifact
) -> TrainingData:
    """Return the chosen films, labelled, of the training and the validation part."""
    pack, split = Pack.open(packed.path), splitting.load_split(parted.path)
    name, classes, labels, chosen, years = films(pack)

    def part(rows: NDArray[np.int64], title: str) -> FilmSet:
        rows = rows[chosen[rows]]
        index = pack.index.iloc[rows]
        return FilmSet(
            name=title,
            images=pack.images,
            rows=rows,
            labels=labels[rows],
            filestems=index["filestem"].tolist(),
            patients=index["patient_id"].to_numpy(),
            years=None if years is None else years[rows],
        )

    train_rows, validation_rows = (pack.rows(split.films(p)) for p in ("train", "validation"))
    return TrainingData(
        name, classes, part(train_rows, "training"), part(validation_rows, "validation")
    )


def _network_to_train(
    model: ModelConfig, head: Callable[[], Head], seed: int, start: Path | None
) -> FilmClassifier:
    seed_weights(seed)
    network = build_model(model, head(), load_weights=start is None)
    if start is not None:
        load_weights(network, start)
    return network


def _split_settings(config: RetrainConfig) -> dict[str, Any]:
    split = config.split.of_the_bundle
    # 0 stands for no fold, as in splits that are there already and whose test sets are followed
    own = {"fold": split.fold or 0, "age_bounds": list(config.cohort.age_bounds)}
    return split.model_dump(mode="json") | own


def _split_files(config: RetrainConfig) -> dict[str, str]:
    """Return the fingerprints of the CSV files that the split is told to follow."""
    named = {"file": config.split.file, "previous": config.split.previous}
    return {
        name: file_hash(Path(path)) for name, path in named.items() if path and Path(path).is_file()
    }


def _latest_split(store: ArtifactStore, cohort: Artifact, config: RetrainConfig) -> Artifact | None:
    """Return the newest split by the same rules of the same data, if it is to be followed."""
    if config.split.file or config.split.previous != "latest":
        return None
    for earlier in store.of_kind("split"):
        earlier_cohort = store.peek(earlier.manifest.parents["cohort"].key)
        same_rules = earlier.manifest.config == _split_settings(config)
        if same_rules and _same_origin(store, earlier_cohort, cohort):
            return earlier
    return None


def _previous_table(config: RetrainConfig, earlier: Artifact | None) -> pd.DataFrame | None:
    if earlier:
        return splitting.load_split(earlier.path).table
    if config.split.file or config.split.previous in ("latest", "none"):
        return None
    return splitting.read_split_table(Path(config.split.previous))


def _same_origin(store: ArtifactStore, earlier: Artifact, cohort: Artifact) -> bool:
    """Return whether two cohorts were cut by the same rules from the same data folder."""
    roots = {
        store.peek(one.manifest.parents["records"].key).manifest.config["root"]
        for one in (earlier, cohort)
    }
    return len(roots) == 1 and earlier.manifest.config == cohort.manifest.config


def _parents(store: ArtifactStore, prepared: Prepared, **more: str) -> dict[str, Artifact]:
    return {name: store.peek(key) for name, key in (prepared.model_dump() | more).items()}


def _scored(
    config: RetrainConfig, parents: dict[str, Artifact], *, every: bool
) -> tuple[Bundle, pd.DataFrame, pd.DataFrame]:
    """Return a bundle, its scores of its split's test films, and metadata of what it learned from.

    ``every`` specialist is asked, or those of a film's age groups alone. Raises PedfracError where
    the bundle's networks learned by another split.
    """
    loaded = Bundle.load(parents["bundle"].path, resolve_device(config.runtime.device))
    if loaded.info.provenance["split"] != parents["split"].key:
        raise PedfracError(f"{parents['bundle'].key} did not learn by {parents['split'].key}")
    fracture, age = (Pack.open(parents[name].path) for name in ("fracture_pack", "age_pack"))
    split = splitting.load_split(parents["split"].path)
    scores = loaded.score_packs(fracture, age, _test_films(split), every=every)
    metadata = fracture.index.set_index("filestem")
    learned = metadata.loc[split.films("train") + split.films("validation")].reset_index()
    return loaded, scores.join(metadata, on="filestem"), learned


def _test_films(split: splitting.Split) -> list[str]:
    films = split.films("test")
    if not films:
        raise PedfracError("the split has no test film: nothing can be evaluated")
    return films


def _validation_answers(
    config: RetrainConfig, bundle: Path, parents: dict[str, Artifact]
) -> pd.DataFrame:
    """Return what generalist and own specialist say of each validation film, with its metadata.

    The trainings left that; with other views of the films the networks are asked anew.
    """
    split = splitting.load_split(parents["split"].path)
    pack = Pack.open(parents["fracture_pack"].path)
    films = split.films("validation")
    metadata = pack.index.set_index("filestem").loc[films].reset_index()
    metadata["group"] = config.cohort.ages.assign(metadata["age"])
    if config.evaluation.views != "one":
        loaded = Bundle.load(bundle, resolve_device(config.runtime.device))
        said = loaded.ask_packs(pack, Pack.open(parents["age_pack"].path), films)
        return metadata.join(said.drop(columns="group").set_index("filestem"), on="filestem")
    names = ["specialist-" + name for name in config.cohort.ages.names]
    columns = [GENERALIST, *(SPECIALIST.format(group) for group in range(len(names)))]
    for column, model in zip(columns, ["generalist", *names], strict=True):
        left = pd.read_csv(parents[model].file("validation.csv"), dtype={"filestem": str})
        metadata = metadata.join(left.set_index("filestem")["p_1"].rename(column), on="filestem")
    return metadata


def _network(config: RetrainConfig, model: ModelConfig) -> Network:
    # where the starting weights lay is no part of a finished network
    return Network(
        model=model.model_copy(update={"weights": "none"}), preparation=config.preparation(model)
    )
