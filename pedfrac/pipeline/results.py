"""Steps that leave what people look at: the pages, copies of results, and the finished run."""

from pathlib import Path
from typing import Any

from pedfrac.bundle.bundle import BundleInfo
from pedfrac.config.base import Section
from pedfrac.config.retrain import RetrainConfig, StudyConfig
from pedfrac.data import source
from pedfrac.evaluation.evaluation import load_metrics
from pedfrac.evaluation.published import published_references
from pedfrac.pipeline import bundling, evaluation, explanation, folds, robustness
from pedfrac.pipeline.data import split_files
from pedfrac.pipeline.keys import Evaluated, Prepared, Trained, parents_of, store_of
from pedfrac.pipeline.maker import CODE as CODE_SOURCE
from pedfrac.pipeline.maker import Given, Maker
from pedfrac.reporting import schema
from pedfrac.reporting.checklist import write_checklist
from pedfrac.reporting.model_card import write_model_card
from pedfrac.storage.code_version import code_digest
from pedfrac.storage.files import export, file_hash, write_json

MODEL = "model-"  # how the roles of the networks begin among a report's parents
CODE = (
    *("age_groups", "bundle", "evaluation.published", "pipeline.results", "reporting"),
    *("reporting.templates", "scoring", "statistics"),
)
ALL_CODE = tuple(
    sorted(
        {*CODE, *bundling.CODE, *evaluation.CODE, *explanation.CODE, *robustness.CODE, *folds.CODE}
    )
)
"""All that a finished retraining leaves follows this code; networks and data do not."""
PAGES = ("report.html", "model_card.md", "checklist.md", schema.METRICS, schema.SCHEMA)


class ReportSettings(Section):
    """What a report says of itself: the study's settings, and where data and code came from."""

    study: StudyConfig
    provenance: dict[str, str]


def write_report(
    config: RetrainConfig,
    prepared: Prepared,
    trained: Trained,
    evaluated: Evaluated,
    provenance: dict[str, str],
) -> str:
    """Write the page that people read."""
    store = store_of(config)
    names = ["age", "generalist", *config.cohort.ages.names]
    keys = [trained.age, trained.generalist, *trained.specialists]
    models = {name: store.peek(key) for name, key in zip(names, keys, strict=True)}
    parents = parents_of(store, prepared, **evaluated.model_dump())
    parents |= {f"{MODEL}{name}": model for name, model in models.items()}
    settings = ReportSettings(study=config.part(StudyConfig), provenance=provenance)
    return REPORT.produce(store, settings, parents, config.runtime).key


def _make(folder: Path, given: Given[ReportSettings]) -> None:
    from pedfrac.reporting import page  # matplotlib is slow to import

    content = _findings(given)
    explained = given.parents["explanation"].path
    montages = {name: explained / name / "montage.png" for name in content["explanation"]}
    found = schema.write_findings(folder, content)
    write_model_card(folder / "model_card.md", found)
    write_checklist(folder / "checklist.md", found)
    page.write_report(folder / "report.html", found, montages)


REPORT = Maker("report", _make, CODE)


def _findings(given: Given[ReportSettings]) -> dict[str, Any]:
    """Return the content of metrics.json, from what the steps left."""
    config, parents = given.settings.study, given.parents
    models = {
        name.removeprefix(MODEL): parent
        for name, parent in parents.items()
        if name.startswith(MODEL)
    }
    sources = given.settings.provenance | {
        name: parent.key for name, parent in parents.items() if not name.startswith(MODEL)
    }
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
        "selection": [{"name": name, **dict(why)} for name, why in chosen],
        **parents["evaluation"].read_json("metrics.json"),
        "explanation": {
            name: explanation.read_json(f"{name}/metrics.json")
            for name in config.cohort.ages.names
            if (explanation.path / name / "metrics.json").is_file()
        },
        "robustness": _if_images(parents["robustness"].read_json("robustness.json")),
        "shortcuts": _if_images(parents["robustness"].read_json("shortcuts.json")),
        "published": published_references(),
        "config": config.model_dump(mode="json"),
        "provenance": sources | {f"model {name}": model.key for name, model in models.items()},
    }


def _if_images(metrics: dict[str, Any]) -> dict[str, Any] | None:
    return metrics if metrics["images"] else None


def publish_results(config: RetrainConfig, evaluated: Evaluated, report: str) -> str:
    """Copy pages, heat maps, metrics and bundle to the results folder, if there is to be one.

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


def version_tags(
    config: RetrainConfig, prepared: Prepared, evaluated: Evaluated, report: str
) -> dict[str, str]:
    """Return the tags of a model version: the artifacts it was made from, and the code version."""
    keys = prepared.model_dump() | evaluated.model_dump() | {"report": report}
    return keys | {"artifacts": config.artifact_root, CODE_SOURCE: code_digest(ALL_CODE)}


def headline_metrics(config: RetrainConfig, evaluated: Evaluated) -> dict[str, float | None]:
    """Return the metrics of each age group's models on the test images, by flat names."""
    metrics = load_metrics(store_of(config).get(evaluated.evaluation).path)
    return {
        f"test.{group.name}.{model.replace(' ', '_')}.{metric}": getattr(values, metric).value
        for group in metrics.groups
        for model, values in group.models.items()
        for metric in ("auroc", "average_precision", "sensitivity", "specificity", "accuracy", "f1")
    }


def _retraining_inputs(config: RetrainConfig) -> dict[str, Any]:
    return {
        "config": config.part(StudyConfig).model_dump(mode="json"),
        "sources": source.fingerprint(config.data)
        | split_files(config)
        | {f"weights of {name}": digest for name, digest in _weight_files(config).items()}
        | {CODE_SOURCE: code_digest(ALL_CODE)},
    }


def _weight_files(config: RetrainConfig) -> dict[str, str]:
    """Return the fingerprints of local files of weights, by model."""
    weights = {name: Path(getattr(config, name).model.weights) for name in ("fracture", "age")}
    return {name: file_hash(path) for name, path in weights.items() if path.is_file()}
