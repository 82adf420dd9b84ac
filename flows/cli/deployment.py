"""The command ``deploy``: flows become deployments on the Prefect server."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import as_table, print_result


def deploy(
    folder: Annotated[Path, typer.Option(help="Folder of prefect.yaml")] = Path("deployments"),
    name: Annotated[
        list[str] | None, typer.Option(help="One deployment; may be repeated; left out: all")
    ] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="The files win over what was set in the UI")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate and compare; send nothing")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Deploy all flows with the operator's file, the YAML that PEDFRAC_CONFIG names.

    Every value is validated before anything is sent. What was set in Prefect's UI is kept, or
    told as overridden where the files changed the same value.
    """
    from flows.infrastructure.deploying import deploy as deploy_all

    made, told = deploy_all(folder, name or (), reset=reset, dry=dry_run)
    tables = [as_table("To be deployed" if dry_run else "Deployed", made)]
    print_result(
        {"deployments": made, "set_in_ui": told},
        as_json,
        [*tables, as_table("Set in the UI", told)],
    )
