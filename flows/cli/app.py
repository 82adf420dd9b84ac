"""The command line: arguments in, flows run, one table or one JSON object out."""

import atexit
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.cli.artifacts import artifacts
from flows.cli.deployment import deploy
from flows.cli.export import export
from flows.cli.monitoring import monitor
from flows.cli.output import as_table as _table
from flows.cli.output import out
from flows.cli.output import print_result as _print
from flows.cli.promotion import promote, promotions, rollback
from flows.cli.registry import registry
from flows.infrastructure.embedded import run_flow
from flows.infrastructure.forking import import_ahead
from flows.infrastructure.log import show_log
from pedfrac.errors import PedfracError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="""Retrain, evaluate and use fracture classifiers for children's wrist X-rays.

    Steps build on one another and keep what they make: `retrain` runs them all, each other
    command runs what it needs and stops. Nothing that is there already is done again.

    Research use only; not a medical device.
    """,
)
Images = Annotated[
    bool | None,
    typer.Option("--images/--no-images", help="Look at image files, or at metadata only"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object; logs go to stderr")]
app.add_typer(artifacts, name="artifacts")
app.add_typer(registry, name="registry")
app.command()(export)
for command in (monitor, promote, rollback, promotions, deploy):
    app.command()(command)


@dataclass
class Settings:
    """The options that tell a command its configuration; they stand before its own."""

    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file with the configuration")
    ] = None
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="Data folder (the same as --set data.root=…)"),
    ] = None
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="One value, such as fracture.training.epochs=5; may be repeated"
        ),
    ] = None
    missing: Annotated[
        str | None, typer.Option(help="Images without an image: 'error' or 'drop' (data.missing)")
    ] = None

    def load(self, more: Mapping[str, object] | None = None) -> Any:
        """Return the configuration: file, then flags and ``more``, then --set.

        What a glance at the files it names shows to be wrong is told here, before anything starts.
        """
        from pedfrac.config.loading import load_config

        flags = {"data.root": self.data, "data.missing": self.missing, **(more or {})}
        # as JSON, which YAML includes: a folder called 2024 is no number
        given = [
            f"{name}={json.dumps(value)}" for name, value in flags.items() if value is not None
        ]
        path = str(self.config) if self.config else None
        config = load_config(path, [*given, *(self.overrides or [])])
        _check_files(config)
        return config


def _check_files(config: Any) -> None:
    from pedfrac.data.layout import check_layout
    from pedfrac.data.split_file import read_split_file
    from pedfrac.storage.uri import is_remote

    if not is_remote(config.data.root):
        check_layout(config.data)
    if config.split.file:
        read_split_file(Path(config.split.file))


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command whose first parameter is a ``Settings`` the options of one."""
    shared = list(inspect.signature(Settings).parameters.values())
    own = list(inspect.signature(command).parameters.values())[1:]

    def run(**given: Any) -> None:
        command(Settings(**{option.name: given.pop(option.name) for option in shared}), **given)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature([*shared, *own])  # type: ignore[attr-defined]
    return run


@app.command()
def phantom(
    folder: Annotated[Path, typer.Argument(help="Empty or new folder to write the data set to")],
    images: Annotated[int, typer.Option(help="Number of images")] = 400,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes")] = 0,
    scale: Annotated[float, typer.Option(help="Linear size relative to real images")] = 1.0,
    shortcut: Annotated[bool, typer.Option(help="Let the side marker tell the label")] = False,
    lesion: Annotated[
        str, typer.Option(help="Instead of fractures: none, one that turns 'by age', or shared")
    ] = "none",
    faults: Annotated[int, typer.Option(help="Number of images of each planted fault")] = 0,
    workers: Annotated[int, typer.Option(help="Processes; 0: one per core")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write synthetic wrist images in the published layout of GRAZPEDWRI-DX."""
    from dataclasses import asdict

    from pedfrac.config.loading import validated
    from pedfrac.config.phantoms import PhantomConfig
    from pedfrac.phantoms.dataset import write_phantoms
    from tasks.progress import progress

    given = {
        "images": images,
        "seed": seed,
        "scale": scale,
        "shortcut": shortcut,
        "lesion": lesion,
        "faults": faults,
        "workers": workers,
    }
    config = validated(PhantomConfig, given, "phantom")
    with progress("phantoms", "drawing phantoms") as show:
        planted = write_phantoms(folder, config, lambda done: show(done, images, ""))
    faulty = [asdict(fault) for fault in planted]
    _print(
        {"folder": str(folder), "images": images, "faults": faulty},
        as_json,
        [_table("Planted faults", faulty)] if faulty else [],
    )


@app.command()
@configured
def records(
    given: Settings,
    images: Images = None,
    as_json: AsJson = False,
) -> None:
    """Read and check a data set; list by name what cannot be used, and count the cohort."""
    settings = given.load({"data.images": images})
    import pandas as pd

    from pedfrac.pipeline.data import count_listed
    from pedfrac.pipeline.keys import store_of

    keys = run_flow("flows.preparation:cohort", settings)
    store = store_of(settings)
    found, counted = store.get(keys.records), store.get(keys.cohort)
    counts = counted.read_json("cohort.json")
    issues = pd.read_csv(found.file("issues.csv"), keep_default_na=False)
    summary = found.read_json("summary.json")
    result = {
        **summary,
        **counts,
        "listed": (listed := count_listed(settings)),
        "artifacts": {"records": found.key, "cohort": counted.key},
        "issues_file": str(found.file("issues.csv")),
        "issues": issues.to_dict("records") if as_json else summary["issues"],
    }
    tables = [
        _table("Cohort", counts["steps"]),
        _table("Age groups, before and after exclusions", _flat_groups(counts["groups"])),
        _table(
            "Age groups as listed, also without a usable image",
            _flat_groups(listed["groups"]) if summary["dropped"] else [],
        ),
        _table(
            "Cannot be used, or contradict themselves (first 20)",
            _rows(issues[["line", "filestem", "kind", "value", "reason"]].head(20)),
        ),
    ]
    _print(result, as_json, tables)


@app.command()
@configured
def split(
    given: Settings,
    images: Images = None,
    file: Annotated[
        str | None, typer.Option(help="Outside split, a CSV of filestem,split (split.file)")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Divide the patients into test, training and validation, and prove them disjoint."""
    settings = given.load({"data.images": images, "split.file": file})
    from pedfrac.pipeline.keys import store_of

    artifact = store_of(settings).get(run_flow("flows.preparation:split", settings))
    report = artifact.read_json("split.json")
    result = {
        "artifact": artifact.key,
        "file": str(artifact.file("split.csv")),
        "patients_in_two_parts": sum(report["disjoint"]["shared"].values()),
        "report": report,
    }
    intervals = (report.get("test_intervals") or {}).get("unfilled", [])
    parts = [{"part": name, **counts} for name, counts in report["parts"].items()]
    tables = [
        _table("Parts", parts),
        _table("Age groups", _flat_groups(report["groups"])),
        _table("Years that the test set could not fill", intervals),
        _table("Outside split", _file_rows(report["file"]) if "file" in report else []),
    ]
    _print(result, as_json, tables)


@app.command()
@configured
def pack(
    given: Settings,
    as_json: AsJson = False,
) -> None:
    """Decode, clean and letterbox all images into one array for each size of network."""
    settings = given.load()
    from pedfrac.pipeline.keys import store_of

    keys = run_flow("flows.preparation:pack", settings)
    store = store_of(settings)
    paths = {
        name: str(store.get(getattr(keys, name)).path) for name in ("fracture_pack", "age_pack")
    }
    _print({"artifacts": keys.model_dump(), "paths": paths}, as_json)


@app.command()
@configured
def train_age(
    given: Settings,
    as_json: AsJson = False,
) -> None:
    """Train the network that tells the age group of an image."""
    settings = given.load()
    _print_training(settings, _run_tracked("flows.training:train_age", settings), as_json)


@app.command()
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
    key = _run_tracked("flows.training:train_fracture", settings, group=number)
    _print_training(settings, key, as_json)


@app.command()
@configured
def evaluate(
    given: Settings,
    as_json: AsJson = False,
) -> None:
    """Score the fixed test set with all models; metrics with 95 % intervals."""
    settings = given.load()
    _print_evaluation(settings, run_flow("flows.evaluation:evaluate", settings), as_json)


@app.command()
@configured
def explain(
    given: Settings,
    as_json: AsJson = False,
) -> None:
    """Write heat maps of the test images, and how often they meet the fractures."""
    settings = given.load()
    evaluated, folder = run_flow("flows.evaluation:explain", settings)
    from pedfrac.pipeline.keys import store_of
    from pedfrac.statistics.words import interval_in_words

    artifact = store_of(settings).get(evaluated.explanation)
    metrics = [
        artifact.read_json(f"{name}/metrics.json")
        for name in settings.cohort.ages.names
        if f"{name}/metrics.json" in artifact.manifest.files
    ]
    result = {"artifact": artifact.key, "pictures": str(folder), "groups": metrics}
    rows = [
        {
            "age group": one["group"],
            "images": one["images"],
            "with boxes": one["with_boxes"],
            "peak in a fracture box": interval_in_words(one["pointing"]),
            "heat in fracture boxes": interval_in_words(one["mass"]),
            "chance": one["chance"],
        }
        for one in metrics
    ]
    _print(result, as_json, [_table("Heat maps", rows)])


@app.command()
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

    A search of the same name goes on where it stopped. The metric of the best is flattered by
    having been chosen; what it is worth, a retraining's test set tells.
    """
    settings = given.load()
    from pedfrac.config.loading import load_search

    wanted = load_search(str(search_file) if search_file else None)
    from pedfrac.pipeline.keys import store_of
    from pedfrac.pipeline.search import TRIALS

    found = run_flow("flows.search:search", settings, wanted)
    trials = store_of(settings).get(found.search).read_json(TRIALS)
    result = found.model_dump() | ({"trials": trials} if as_json else {})
    _print(result, as_json, [_table("Trials", trials)])


@app.command()
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
    done = _run_retraining(settings)
    _print_evaluation(settings, done.evaluated, as_json, done.model_dump(mode="json"))
    if not as_json:
        out.print(f"Report             {done.report}")
        if done.version is not None:
            out.print(f"Registered         version {done.version} of {settings.tracking.model}")
        if settings.results:
            results = Path(settings.results)
            out.print(f"Grad-CAM pictures  {results / 'gradcam_results'}/<age group>/")
            out.print(f"Bundle             {results / 'bundle'}  (for pedfrac predict)")


@app.command()
@configured
def reproduce(
    given: Settings,
    name: Annotated[
        str | None, typer.Argument(help="Protocol, such as ruiyangju; see --list")
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(help="Its split: CSV of filestem,split, or folder with a list for each part"),
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Show all published protocols and metrics")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Retrain on a published split, and show the metrics beside the published ones.

    A patient in more than one part of the split is counted, and kept in the strictest one alone:
    all test images are tested, and none of their patients trains.
    """
    if listed:
        _print_protocols(as_json)
        return
    if name is None or split is None:
        raise PedfracError("reproduce: give a protocol and its --split; --list shows them all")
    from pedfrac.evaluation.published import convert_split, find_protocol

    protocol = find_protocol(name)
    folder = given.load(protocol.settings).tracking_folder
    file = folder / "protocols" / f"{name}.csv"
    leakage = convert_split(split, file)
    settings = given.load({**protocol.settings, "split.file": str(file)})
    if settings.split.file != str(file):
        raise PedfracError("reproduce: the split is that of --split; leave split.file out")

    done = _run_retraining(settings)
    _print_reproduction(settings, protocol, leakage, done, as_json)


@app.command()
def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images (DICOM, PNG of 8 or 16 bits, JPEG), folders, CSV tables with the column "
            "'file' and perhaps 'age', or s3://bucket/prefix"
        ),
    ],
    bundle: Annotated[
        str, typer.Option("--bundle", "-b", help="Folder of a bundle, or its key among artifacts")
    ],
    ages: Annotated[
        str | None,
        typer.Option(
            help="CSV with filestem and age in years; else as the DICOM says, else seen by network"
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Folder of YOLO labels, to take side markers out; without, they are left"
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="Scores to write: .parquet, .csv or .json, here or at s3://"
        ),
    ] = None,
    dicom_out: Annotated[
        str | None,
        typer.Option(
            help="Folder for DICOM of what came as DICOM: a structured report and a heat map each, "
            "with the patient and study of their source; needs -o"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    runtime: Annotated[
        Literal["torch", "onnx"], typer.Option(help="onnx for a bundle that was exported")
    ] = "torch",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images that are scored together; more keep a GPU busier")
    ] = 32,
    as_json: AsJson = False,
) -> None:
    """Score any images with a bundle.

    With -o a run goes on where a killed one stopped, and scores only images that are new or
    changed. An image that cannot be read or is none of a wrist is named, with the reason, and the
    others go on; the command fails only where none could be scored or the input is wrong. No name,
    number or birth date of a patient goes into logs or scores; images are called by their paths.
    """
    from pedfrac.config.loading import validated
    from pedfrac.config.serving import PredictionConfig
    from pedfrac.pipeline.prediction import predict_images
    from pedfrac.serving.score_table import as_records
    from tasks.progress import progress

    given = {
        "images": tuple(images),
        "bundle": bundle,
        "ages": ages,
        "labels": labels,
        "output": output,
        "dicom_out": dicom_out,
        "device": device,
        "runtime": runtime,
        "batch_size": batch_size,
    }
    config = validated(PredictionConfig, given, "predict")
    with progress("prediction", "scoring images") as show:
        done = predict_images(config, lambda count, total: show(count, total, ""))
    rows: Any = as_records(done.rows if as_json else done.rows.head(50))
    result = {"bundle": bundle, "summary": done.in_words(), "failed": done.failed, "images": rows}
    shown = [{**row, "file": Path(row["file"]).name} for row in rows[:50]]
    columns = ("file", "age", "age_group_used", "routed_by", "probability", "call", "note", "error")
    table = _table("Scores", [{name: row[name] for name in columns} for row in shown])
    _print(result | {"without_dicom": done.without_dicom}, as_json, [table])


@app.command()
def workers(
    pool: Annotated[str, typer.Option(help="Work pool whose runs are taken")] = "gpu",
    slots: Annotated[
        int | None,
        typer.Option(min=1, help="CPU slots; left out: one for each visible GPU, bound to it"),
    ] = None,
) -> None:
    """Run this machine's workers, one run each, until stopped; those that die are started again."""
    from flows.infrastructure.workers import run_workers

    run_workers(pool, slots)


@app.command()
def pools(
    folder: Annotated[
        Path, typer.Option(help="Folder of pools.yaml, automations.yaml and templates/")
    ] = Path("deployments"),
    kind: Annotated[
        str, typer.Option(help="Of the pools: process, docker or kubernetes")
    ] = "process",
    notify: Annotated[
        str | None,
        typer.Option(
            help="Block that alerts go to, such as slack-webhook/alerts; none; left out: as before"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make or update pools, queues and automations on the server at PREFECT_API_URL."""
    from flows.infrastructure.pools import prepare_server

    made = prepare_server(folder, kind, notify)
    _print({"made": made}, as_json, [_table("On the server", made)])


@app.command()
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


def main() -> None:
    """Run the command line; a PedfracError ends in one line on stderr and exit code 1."""
    # Prefect reads its settings once, on import, which comes later; the server need not call home
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    # a machine at work takes longer than the 20 s that Prefect waits
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    # a bar for each file that MLflow copies hides what a run has to say
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    show_log()
    with leaving_at_once():
        try:
            app()
        except PedfracError as error:
            print(f"pedfrac: {error}", file=sys.stderr)
            sys.exit(1)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """End the process when all that is to be done at its end is done.

    Python would take torch and its compiler apart first, which takes seconds and changes nothing.
    """
    status = 1

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(leave)  # the first to be registered is the last to run
    try:
        yield
        status = 0
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        raise


def _group_number(group: str, names: Sequence[str]) -> int | None:
    if group == "all":
        return None
    if group in names:
        return names.index(group)
    if group.isdigit() and int(group) < len(names):
        return int(group)
    raise PedfracError(f"--group {group}: allowed are all, 0-{len(names) - 1}, {', '.join(names)}")


def _run_retraining(settings: Any) -> Any:
    if settings.runtime.parallel > 1 and settings.runtime.dispatch == "local":
        import_ahead()
    return _run_tracked("flows.retrain:retrain", settings)


def _run_tracked(entrypoint: str, settings: Any, **more: Any) -> Any:
    """Run a flow that keeps runs in MLflow, whose database is made while the server starts."""

    def create_store() -> None:
        from pedfrac import mlflow_runs

        mlflow_runs.create_store(settings.tracking, settings.tracking_folder)

    return run_flow(entrypoint, settings, meanwhile=create_store, **more)


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
    _print(result, as_json, [_table(f"Training of {summary['name']}", rows)])


def _print_evaluation(
    settings: Any, evaluated: Any, as_json: bool, more: dict[str, Any] | None = None
) -> None:
    from pedfrac.evaluation.evaluation import in_words, summary_rows
    from pedfrac.pipeline.keys import store_of

    artifact = store_of(settings).get(evaluated.evaluation)
    metrics = artifact.read_json("metrics.json")
    result = {**(more or {"evaluated": evaluated.model_dump()}), "metrics": metrics}
    tables = [_table("Test images", summary_rows(metrics))]
    if folds := metrics.get("folds"):
        title = f"Pooled k-fold: images held out in turn from {folds['folds']} sets of networks"
        tables.append(_table(title, summary_rows(folds)))
    _print(result, as_json, tables)
    if not as_json:
        out.print(in_words(metrics))


def _print_protocols(as_json: bool) -> None:
    from pedfrac.evaluation.published import published_protocols, published_references

    protocols, references = published_protocols(), published_references()
    if as_json:
        told = [one.model_dump(mode="json", exclude={"metrics"}) for one in protocols]
        _print({"protocols": told, "references": references}, as_json)
        return
    shown = [
        {
            **{name: getattr(one, name) for name in ("name", "split", "task", "population")},
            "reproducible": "yes" if one.split_file else "split not published",
        }
        for one in protocols
    ]
    metrics = [
        {"name": one["protocol"], "metric": one["metric"], "published": _published(one)}
        | {name: one[name] for name in ("of", "measured_on", "split", "note")}
        for one in references
    ]
    _print({}, as_json, [_table("Published protocols", shown), _table("Their metrics", metrics)])
    for one in protocols:
        out.print(f"{one.name}: {one.source}. {one.url}", soft_wrap=True)
        for line in filter(None, (one.split_note, one.split_file)):
            out.print(f"    {line}", soft_wrap=True)


def _print_reproduction(
    settings: Any, protocol: Any, leakage: Any, done: Any, as_json: bool
) -> None:
    from pedfrac.evaluation.published import side_by_side, what_was_shared
    from pedfrac.pipeline.keys import store_of

    metrics = store_of(settings).get(done.evaluated.evaluation).read_json("metrics.json")
    said = what_was_shared(protocol, leakage, metrics["groups"][0]["images"])
    compared = side_by_side(protocol, metrics)
    if as_json:
        result = {
            "protocol": protocol.model_dump(mode="json"),
            "split": leakage.counts(),
            "said": said,
            "side_by_side": compared,
            **done.model_dump(mode="json"),
        }
        _print(result, as_json)
        return
    title = f"{protocol.name}: published (split {protocol.split}) beside here (by patient)"
    rows = [
        {**row, "published": _published(row["published"]), "here": _own(row["here"])}
        for row in compared
    ]
    out.print(_table(title, rows))
    for line in (*said, protocol.split_note, f"Source: {protocol.source}. {protocol.url}"):
        out.print(line, soft_wrap=True)
    out.print(f"Report: {done.report}")


def _published(one: dict[str, Any] | None) -> str:
    """Return a published metric with its bounds, in no more digits than its source has."""
    if one is None:
        return "–"
    bounds = "" if one["low"] is None else f" ({one['low']:g}–{one['high']:g})"
    return f"{one['value']:g}{bounds}"


def _own(one: dict[str, Any] | None) -> str:
    from pedfrac.statistics.words import interval_in_words

    return "–" if one is None else interval_in_words(one)


def _rows(frame: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = frame.to_dict("records")
    return rows


def _file_rows(file: dict[str, Any]) -> list[dict[str, Any]]:
    """Say how an outside split and the cohort fit: images of each in the other or not."""
    return [
        {
            "images": "named and in the cohort",
            "count": sum(file["images_in_cohort"].values()),
            "such as": "",
        },
        {
            "images": "named, not in the cohort",
            "count": file["images_not_in_cohort"],
            "such as": ", ".join(file["not_in_cohort_such_as"]),
        },
        {
            "images": "in the cohort, not named: left out",
            "count": file["cohort_not_named"],
            "such as": ", ".join(file["not_named_such_as"]),
        },
    ]


def _flat_groups(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spread nested counts over columns such as ``train images``."""
    return [
        {
            "group": group["name"],
            **{
                f"{part} {count}": number
                for part, counts in group.items()
                if isinstance(counts, dict)
                for count, number in counts.items()
            },
        }
        for group in groups
    ]


if __name__ == "__main__":
    main()
