"""The commands that train, as flows of Prefect: ``train-age``, ``train-fracture``, ``search``,
``retrain``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.evaluation import print_evaluation
from flows.cli.options import AsJson, Settings, configured
from flows.cli.orchestrated import run_flow
from flows.cli.output import as_table, out, print_result
from pedfrac.errors import PedfracError


@configured
def train_age(
    given: Settings,
    as_json: AsJson = False,
) -> None:
    """Train the classifier that estimates the age group of an image."""
    settings = given.load()
    _print_training(settings, run_flow("flows.training:train_age", settings), as_json)


@configured
def train_fracture(
    given: Settings,
    group: Annotated[
        str, typer.Option(help="Age group by number or name (0-1.5y), or 'all': the generalist")
    ] = "all",
    as_json: AsJson = False,
) -> None:
    """Train the fracture network of one age group, or the generalist of all ages."""
    settings = given.load()
    number = _group_number(group, settings.cohort.ages.names)
    key = run_flow("flows.training:train_fracture", settings, group=number)
    _print_training(settings, key, as_json)


@configured
def search(
    given: Settings,
    search_file: Annotated[
        Path | None,
        typer.Option("--search", help="YAML file with the search: space, trials, gpu_hours …"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search for better training settings by validation images; write the best as YAML.

    A search of the same name continues where it stopped. The best metric is optimistic, because it
    was chosen among many; the test set of a retraining shows what the settings are worth.
    """
    settings = given.load()
    from pedfrac.config.loading import load_search

    wanted = load_search(str(search_file) if search_file else None)
    from pedfrac.pipeline.keys import store_of
    from pedfrac.pipeline.search import TRIALS

    found = run_flow("flows.search:search", settings, wanted)
    trials = store_of(settings).get(found.search).read_json(TRIALS)
    result = found.model_dump() | ({"trials": trials} if as_json else {})
    print_result(result, as_json, [as_table("Trials", trials)])


@configured
def retrain(
    given: Settings,
    as_json: AsJson = False,
) -> None:
    """Run everything: prepare, train all models, evaluate, explain, report.

    With `--set split.folds=5`, five more sets of networks are trained, each without one fold of the
    patients; the images held out give pooled metrics by age group, also for groups too small for
    the test set.
    """
    settings = given.load()
    done = run_flow("flows.retrain:retrain", settings)
    print_evaluation(settings, done.evaluated.evaluation, as_json, done.model_dump(mode="json"))
    if not as_json:
        out.print(f"Report             {done.report}")
        if done.version is not None:
            out.print(f"Registered         version {done.version} of {settings.tracking.model}")
        if settings.results:
            results = Path(settings.results)
            out.print(f"Grad-CAM pictures  {results / 'gradcam_results'}/<age group>/")
            out.print(f"Bundle             {results / 'bundle'}  (for pedfrac predict)")


def _group_number(group: str, names: Sequence[str]) -> int | None:
    if group == "all":
        return None
    if group in names:
        return names.index(group)
    if group.isdigit() and int(group) < len(names):
        return int(group)
    raise PedfracError(f"--group {group}: allowed are all, 0-{len(names) - 1}, {', '.join(names)}")


def _print_training(settings: Any, key: str, as_json: bool) -> None:
    from pedfrac.pipeline.keys import store_of

    artifact = store_of(settings).get(key)
    summary = artifact.read_json("summary.json")
    history = artifact.read_json("history.json")
    rows = [
        {
            "epoch": epoch["epoch"],
            **{f"training {k}": v for k, v in epoch["training"].items()},
            **{f"validation {k}": v for k, v in epoch["validation"].items()},
            "best": epoch["best"],
        }
        for epoch in history
    ]
    result = {"artifact": key, "path": str(artifact.path), **summary, "history": history}
    print_result(result, as_json, [as_table(f"Training of {summary['name']}", rows)])
