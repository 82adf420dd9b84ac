"""The commands ``phantom``, ``records``, ``split`` and ``pack``: from data to packed images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.options import AsJson, Settings, configured
from flows.cli.output import as_table, print_result

Images = Annotated[
    bool | None,
    typer.Option("--images/--no-images", help="Look at image files, or at metadata only"),
]


def phantom(
    folder: Annotated[Path, typer.Argument(help="Empty or new folder to write the data set to")],
    images: Annotated[int, typer.Option(help="Number of images")] = 400,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes")] = 0,
    scale: Annotated[float, typer.Option(help="Linear size relative to real images")] = 1.0,
    shortcut: Annotated[bool, typer.Option(help="Let the side marker tell the label")] = False,
    lesion: Annotated[
        str, typer.Option(help="Instead of fractures: none, one that turns 'by age', or shared")
    ] = "none",
    severity: Annotated[
        float, typer.Option(help="Least severity of fractures: 0 all, 1 only the clearest")
    ] = 0.0,
    faults: Annotated[int, typer.Option(help="Number of images of each planted fault")] = 0,
    workers: Annotated[int, typer.Option(help="Processes; 0: one per core")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write synthetic wrist images in the published layout of GRAZPEDWRI-DX."""
    from dataclasses import asdict

    from pedfrac.config.loading import validated
    from pedfrac.config.phantoms import PhantomConfig
    from pedfrac.phantoms.dataset import write_phantoms
    from tasks.bar import progress_bar

    given = {
        "images": images,
        "seed": seed,
        "scale": scale,
        "shortcut": shortcut,
        "lesion": lesion,
        "severity": severity,
        "faults": faults,
        "workers": workers,
    }
    config = validated(PhantomConfig, given, "phantom")
    with progress_bar("drawing phantoms") as show:
        planted = write_phantoms(folder, config, lambda done: show(done, images, ""))
    faulty = [asdict(fault) for fault in planted]
    print_result(
        {"folder": str(folder), "images": images, "faults": faulty},
        as_json,
        [as_table("Planted faults", faulty)] if faulty else [],
    )


@configured
def records(
    given: Settings,
    images: Images = None,
    as_json: AsJson = False,
) -> None:
    """Read and check a data set; list by name what cannot be used, and count the cohort."""
    settings = given.load({"data.images": images})
    import pandas as pd

    from flows.cli import steps
    from pedfrac.pipeline.data import count_listed, select_cohort
    from pedfrac.pipeline.keys import store_of

    store = store_of(settings)
    found = store.get(steps.read_records(settings))
    counted = store.get(select_cohort(settings, found.key))
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
        as_table("Cohort", counts["steps"]),
        as_table("Age groups, before and after exclusions", _flat_groups(counts["groups"])),
        as_table(
            "Age groups as listed, also without a usable image",
            _flat_groups(listed["groups"]) if summary["dropped"] else [],
        ),
        as_table(
            "Cannot be used, or contradict themselves (first 20)",
            _rows(issues[["line", "filestem", "kind", "value", "reason"]].head(20)),
        ),
    ]
    print_result(result, as_json, tables)


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
    from flows.cli import steps
    from pedfrac.pipeline.data import select_cohort, split_patients
    from pedfrac.pipeline.keys import store_of

    cohort = select_cohort(settings, steps.read_records(settings))
    artifact = store_of(settings).get(split_patients(settings, cohort))
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
        as_table("Parts", parts),
        as_table("Age groups", _flat_groups(report["groups"])),
        as_table("Years that the test set could not fill", intervals),
        as_table("Outside split", _file_rows(report["file"]) if "file" in report else []),
    ]
    print_result(result, as_json, tables)


@configured
def pack(
    given: Settings,
    as_json: AsJson = False,
) -> None:
    """Decode, clean and letterbox all images into one array for each size of network."""
    settings = given.load()
    from flows.cli import steps
    from pedfrac.pipeline.keys import store_of

    keys = steps.prepare(settings)
    store = store_of(settings)
    paths = {
        name: str(store.get(getattr(keys, name)).path) for name in ("fracture_pack", "age_pack")
    }
    print_result({"artifacts": keys.model_dump(), "paths": paths}, as_json)


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
