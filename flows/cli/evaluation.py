"""The commands ``evaluate``, ``explain`` and ``report``: what trained networks are worth."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.options import AsJson, Settings, configured
from flows.cli.output import as_table, out, print_result


@configured
def evaluate(
    given: Settings,
    as_json: AsJson = False,
) -> None:
    """Score the fixed test set with all trained models; metrics with 95 % intervals.

    Nothing is trained: models that are missing are named, and `retrain` with the same options
    trains them.
    """
    settings = given.load()
    from flows.cli import steps

    bundle, evaluation = steps.evaluate(settings, steps.prepare(settings, packed=False))
    made = {"bundle": bundle, "evaluation": evaluation}
    print_evaluation(settings, evaluation, as_json, {"evaluated": made})


@configured
def explain(
    given: Settings,
    as_json: AsJson = False,
) -> None:
    """Write heat maps of the test images, and how often they match the fractures.

    The models are evaluated first where they are not. Nothing is trained: models that are missing
    are named, and `retrain` with the same options trains them.
    """
    settings = given.load()
    from flows.cli import steps
    from pedfrac import pipeline
    from pedfrac.config.loading import read_json_as
    from pedfrac.explanation.metrics import GroupExplanation
    from pedfrac.pipeline.keys import store_of
    from pedfrac.statistics.words import interval_in_words

    prepared = steps.prepare(settings, packed=False)
    key = steps.explain(settings, prepared, *steps.evaluate(settings, prepared))
    folder = pipeline.publish_heat_maps(settings, key)
    artifact = store_of(settings).get(key)
    metrics = [
        read_json_as(artifact.file(f"{name}/metrics.json"), GroupExplanation)
        for name in settings.cohort.ages.names
        if f"{name}/metrics.json" in artifact.manifest.files
    ]
    groups = [one.model_dump(mode="json") for one in metrics]
    result = {"artifact": artifact.key, "pictures": str(folder), "groups": groups}
    rows = [
        {
            "age group": one.group,
            "images": one.images,
            "with boxes": one.with_boxes,
            "peak in a fracture box": interval_in_words(one.pointing),
            "heat in fracture boxes": interval_in_words(one.mass),
            "chance": one.chance,
        }
        for one in metrics
    ]
    print_result(result, as_json, [as_table("Heat maps", rows)])


def report(
    metrics: Annotated[Path, typer.Argument(help="A metrics.json")],
    montages: Annotated[
        Path | None, typer.Option(help="Folder of heat maps, <age group>/montage.png")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Page")] = Path("report.html"),
) -> None:
    """Make a report again, from metrics.json and heat maps alone."""
    from pedfrac.reporting.page import write_report
    from pedfrac.reporting.schema import read_findings

    pictures = sorted(montages.glob("*/montage.png")) if montages else []
    write_report(output, read_findings(metrics), {path.parent.name: path for path in pictures})
    out.print(f"Report  {output}")


def print_evaluation(settings: Any, evaluation: str, as_json: bool, made: dict[str, Any]) -> None:
    """Print the metrics of an evaluation by its key, with what else was ``made``."""
    from pedfrac.evaluation.evaluation import in_words, load_metrics, summary_rows
    from pedfrac.pipeline.keys import store_of

    metrics = load_metrics(store_of(settings).get(evaluation).path)
    result = made | {"metrics": metrics.model_dump(mode="json")}
    tables = [as_table("Test images", summary_rows(metrics))]
    if folds := metrics.folds:
        title = f"Pooled k-fold: images held out in turn from {folds.folds} sets of networks"
        tables.append(as_table(title, summary_rows(folds)))
    print_result(result, as_json, tables)
    if not as_json:
        out.print(in_words(metrics))
