"""The command ``predict``: images in, scores out."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.cli.options import AsJson
from flows.cli.output import as_table, print_result

Images = Annotated[
    list[str],
    typer.Argument(
        help="Images (DICOM, PNG of 8 or 16 bits, JPEG), folders, CSV tables with the column "
        "'file' and perhaps 'age', or s3://bucket/prefix"
    ),
]
Bundle = Annotated[
    str, typer.Option("--bundle", "-b", help="Folder of a bundle, or its key among artifacts")
]
Ages = Annotated[
    str | None,
    typer.Option(
        help="CSV with filestem and age in years; else as the DICOM says, else seen by network"
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(help="Folder of YOLO labels, to take side markers out; without, they are left"),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", help="Scores to write: .parquet, .csv or .json, here or at s3://"
    ),
]
DicomOut = Annotated[
    str | None,
    typer.Option(
        help="Folder for DICOM of what came as DICOM: a structured report and a heat map each, "
        "with the patient and study of their source; needs -o"
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
Runtime = Annotated[
    Literal["torch", "onnx"], typer.Option(help="onnx for a bundle that was exported")
]
Prevalence = Annotated[
    float | None,
    typer.Option(
        help="Share of fractured images where the scores are used, such as 0.3; moves "
        "probabilities and thresholds, no call; else that of the intended use"
    ),
]
BatchSize = Annotated[
    int, typer.Option(min=1, help="Images that are scored together; more keep a GPU busier")
]


def predict(
    images: Images,
    bundle: Bundle,
    ages: Ages = None,
    labels: Labels = None,
    output: Output = None,
    dicom_out: DicomOut = None,
    device: Device = "auto",
    runtime: Runtime = "torch",
    prevalence: Prevalence = None,
    batch_size: BatchSize = 32,
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
    from tasks.bar import progress_bar

    given = {
        "images": tuple(images),
        "bundle": bundle,
        "ages": ages,
        "labels": labels,
        "output": output,
        "dicom_out": dicom_out,
        "device": device,
        "runtime": runtime,
        "prevalence": prevalence,
        "batch_size": batch_size,
    }
    config = validated(PredictionConfig, given, "predict")
    with progress_bar("scoring images") as show:
        done = predict_images(config, lambda count, total: show(count, total, ""))
    rows: Any = as_records(done.rows if as_json else done.rows.head(50))
    for row in rows:
        row["boxes"] = json.loads(row["boxes"]) if row["boxes"] else None
    result = {"bundle": bundle, "summary": done.in_words(), "failed": done.failed, "images": rows}
    shown = [{**row, "file": Path(row["file"]).name} for row in rows[:50]]
    columns = ("file", "age", "age_group_used", "routed_by", "probability", "call", "note", "error")
    table = as_table("Scores", [{name: row[name] for name in columns} for row in shown])
    print_result(
        result | {"without_dicom": done.without_dicom, "left_out": dict(done.left_out)},
        as_json,
        [table],
    )
