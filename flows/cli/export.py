"""The command that exports a bundle to ONNX.

Not here: running what was exported (``predict --runtime onnx``).
"""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.output import as_table, print_result
from pedfrac.errors import PedfracError

logger = logging.getLogger(__name__)


def export(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder to write")],
    int8: Annotated[
        bool, typer.Option("--int8", help="Linear layers in 8 bits: smaller, faster, less exact")
    ] = False,
    check: Annotated[
        Path | None,
        typer.Option(help="Data set with labels: its images are compared, and AUROC with AUROC"),
    ] = None,
    among: Annotated[
        Path | None,
        typer.Option(help="Table whose filestem names the images of --check to take: unseen ones"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; logs go to stderr")
    ] = False,
) -> None:
    """Write a bundle's networks as ONNX, checked against PyTorch, for `predict --runtime onnx`."""
    from pedfrac.bundle.bundle import read_info
    from pedfrac.bundle.onnx_export import export_onnx, labelled_images
    from tasks.bar import progress_bar

    if among and not check:
        raise PedfracError("--among names images of a data set; give that too, with --check")
    with ExitStack() as stack:
        images = None
        if check:
            show = stack.enter_context(progress_bar("preparing images"))
            images = stack.enter_context(
                labelled_images(
                    check, read_info(bundle), among, lambda done, total: show(done, total, "")
                )
            )
        info = export_onnx(bundle, output, int8=int8, images=images)
    networks = as_table(
        f"{info.precision}, against PyTorch",
        [{"network": name, **check} for name, check in info.checks.items()],
    )
    found = info.model_dump(mode="json")
    print_result({"folder": str(output)} | found, as_json, [networks, *_image_tables(info.images)])


def _image_tables(images: dict[str, Any]) -> list[Any]:
    from pedfrac.statistics.words import interval_in_words

    if "reason" in images:
        logger.warning("AUROC lost by the export: %s", images["reason"])
        return []
    words = {name: interval_in_words(one) for name, one in images["auroc"].items()}
    title = f"AUROC on {images['images']} images of {images['patients']} patients (95 % interval)"
    return [as_table(title, [words])]
