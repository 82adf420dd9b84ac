"""The command that fetches pretrained weights, for machines that cannot reach the hub."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import as_table, print_result


def weights(
    folder: Annotated[Path, typer.Argument(help="Folder to write BACKBONE.safetensors to")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file with the configuration")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="One value, such as fracture.model.backbone=…; may be repeated"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Fetch the pretrained weights of a configuration, to carry them where there is no internet."""
    from pedfrac.config.loading import load_config
    from pedfrac.models.weights import fetch_weights, hub_backbones

    # the data are not looked at
    settings = load_config(str(config) if config else None, ['data.root="."', *(overrides or [])])
    rows = [
        {"set": f"{name}.weights", "to": str(fetch_weights(backbone, folder))}
        for name, backbone in hub_backbones(settings).items()
    ]
    print_result({"weights": rows}, as_json, [as_table("Fetched", rows)])
