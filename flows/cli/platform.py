"""The commands ``workers`` and ``pools``, for who runs a Prefect server."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import AsJson
from flows.cli.output import as_table, print_result


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
    print_result({"made": made}, as_json, [as_table("On the server", made)])
