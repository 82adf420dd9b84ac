"""The command that compares scored images with those that made a bundle."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.output import as_table, out, print_result

Scores = Annotated[
    list[str],
    typer.Argument(help="Tables that predict wrote: .parquet, .csv or .json, or at s3://"),
]
Bundle = Annotated[
    str, typer.Option("--bundle", "-b", help="Folder of a bundle, or its key among artifacts")
]
Labels = Annotated[
    str | None,
    typer.Option(help="CSV with the columns file and fractured (1, 0), when labels have come"),
]
Since = Annotated[str | None, typer.Option(help="Only images scored from this date or time on")]
Until = Annotated[str | None, typer.Option(help="Only images scored before this date or time")]
LastDays = Annotated[
    float | None, typer.Option(help="Only images scored in so many days before now")
]
Rate = Annotated[
    float, typer.Option(help="How often, at most, a window without a change is called changed")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for copies of page and metrics")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object; logs go to stderr")]


def monitor(
    scores: Scores,
    bundle: Bundle,
    labels: Labels = None,
    since: Since = None,
    until: Until = None,
    last_days: LastDays = None,
    rate: Rate = 0.01,
    output: Output = Path("drift"),
    as_json: AsJson = False,
) -> None:
    """Tell whether images at work, their scores and, with labels, their metrics have changed.

    They are compared with the reference profile that lies in the bundle. The command ends as done
    whether something has changed or not, and fails only where its input is wrong. Nothing is
    started by a change: the event `pedfrac.drift`, which may start a retraining, is that of the
    deployment `monitor`.
    """
    from pedfrac.config.loading import validated
    from pedfrac.config.monitoring import MonitorConfig
    from pedfrac.monitoring.time_windows import check_files

    given = {
        "scores": tuple(scores),
        "bundle": bundle,
        "labels": labels,
        "since": since,
        "until": until,
        "last_days": last_days,
        "false_alarm_rate": rate,
        "output": str(output),
    }
    config = validated(MonitorConfig, given, "monitor")
    check_files(config)
    from pedfrac.pipeline.monitoring import drift_findings, track_window

    found, _ = track_window(config)
    findings = drift_findings(config, found)
    rows: list[dict[str, Any]] = [
        {
            "compared": test["title"],
            "size": test["size"],
            "p, corrected": test["p_corrected"],
            "finding": test["words"] if test["drifted"] else "",
        }
        for test in findings["tests"]
    ]
    result = found.model_dump(mode="json")
    print_result(result | {"findings": findings}, as_json, [as_table("Comparisons", rows)])
    if not as_json:
        for note in findings["notes"]:
            out.print(note, soft_wrap=True)
