"""The command ``reproduce``: a retraining on a published split, beside the published metrics."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import AsJson, Settings, configured
from flows.cli.orchestrated import run_flow
from flows.cli.output import as_table, out, print_result
from pedfrac.errors import PedfracError

if TYPE_CHECKING:
    from pedfrac.evaluation.published import PublishedValue, Reference
    from pedfrac.statistics.intervals import Interval


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

    done = run_flow("flows.retrain:retrain", settings)
    _print_reproduction(settings, protocol, leakage, done, as_json)


def _print_protocols(as_json: bool) -> None:
    from pedfrac.evaluation.published import published_protocols, published_references

    protocols, references = published_protocols(), published_references()
    if as_json:
        told = [one.model_dump(mode="json", exclude={"metrics"}) for one in protocols]
        listed = [one.model_dump(mode="json") for one in references]
        print_result({"protocols": told, "references": listed}, as_json)
        return
    shown = [
        {
            **{name: getattr(one, name) for name in ("name", "split", "task", "population")},
            "reproducible": "yes" if one.split_file else "split not published",
        }
        for one in protocols
    ]
    metrics = [
        {"name": one.protocol, "metric": one.metric, "published": _published(one)}
        | {name: getattr(one, name) for name in ("of", "measured_on", "split", "note")}
        for one in references
    ]
    print_result(
        {}, as_json, [as_table("Published protocols", shown), as_table("Their metrics", metrics)]
    )
    for one in protocols:
        out.print(f"{one.name}: {one.source}. {one.url}", soft_wrap=True)
        for line in filter(None, (one.split_note, one.split_file)):
            out.print(f"    {line}", soft_wrap=True)


def _print_reproduction(
    settings: Any, protocol: Any, leakage: Any, done: Any, as_json: bool
) -> None:
    from pedfrac.evaluation.evaluation import load_metrics
    from pedfrac.evaluation.published import side_by_side, what_was_shared
    from pedfrac.pipeline.keys import store_of

    metrics = load_metrics(store_of(settings).get(done.evaluated.evaluation).path)
    said = what_was_shared(protocol, leakage, metrics.whole.images)
    compared = side_by_side(protocol, metrics)
    if as_json:
        result = {
            "protocol": protocol.model_dump(mode="json"),
            "split": leakage.counts(),
            "said": said,
            "side_by_side": [row.model_dump(mode="json") for row in compared],
            **done.model_dump(mode="json"),
        }
        print_result(result, as_json)
        return
    title = f"{protocol.name}: published (split {protocol.split}) beside here (by patient)"
    rows = [
        {**dict(row), "published": _published(row.published), "here": _own(row.here)}
        for row in compared
    ]
    out.print(as_table(title, rows))
    for line in (*said, protocol.split_note, f"Source: {protocol.source}. {protocol.url}"):
        out.print(line, soft_wrap=True)
    out.print(f"Report: {done.report}")


def _published(one: "Reference | PublishedValue | None") -> str:
    """Return a published metric with its bounds, in no more digits than its source has."""
    if one is None:
        return "–"
    bounds = "" if one.low is None else f" ({one.low:g}–{one.high:g})"
    return f"{one.value:g}{bounds}"


def _own(one: "Interval | None") -> str:
    from pedfrac.statistics.words import interval_in_words

    return "–" if one is None else interval_in_words(one)
