"""The command ``pedfrac registry``: which versions of the model there are, and which may go.

Not here: what makes a version champion.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.output import as_table, out, print_result
from pedfrac.errors import PedfracError

registry = typer.Typer(
    no_args_is_help=True,
    help="""Look at the versions of the model in MLflow's registry, and delete old ones.

    Which registry: that of `--config`, else MLFLOW_TRACKING_URI, else MLflow's SQLite beside the
    artifacts (`--root`, else PEDFRAC_ARTIFACTS, else `artifacts`).
    """,
)
Root = Annotated[str | None, typer.Option("--root", "-r", help="Folder or s3://bucket/prefix")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file that names it")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]


@registry.command("list")
def list_(root: Root = None, config: Config = None, as_json: AsJson = False) -> None:
    """List the versions, the newest first, and say if the champion is lost."""
    known = open_registry(root, config)
    versions = known.versions()
    lost = known.lost()
    rows = [
        {
            "version": one.number,
            "aliases": ", ".join(one.aliases),
            "registered": one.created.isoformat(timespec="seconds"),
            "bundle": one.tags.get("bundle", ""),
            "data": one.tags.get("data fingerprint", "")[:12],
            "code": one.tags.get("code version", ""),
            "run": one.run_id,
        }
        for one in versions
    ]
    told = [row | {"tags": one.tags} for row, one in zip(rows, versions, strict=True)]
    table = as_table(f"Versions of {known.name}", rows)
    print_result({"model": known.name, "versions": told, "lost": lost}, as_json, [table])
    if lost and not as_json:
        out.print(f"The champion is lost: {lost}", soft_wrap=True)


@registry.command()
def delete(
    number: Annotated[int, typer.Argument(help="Version")],
    root: Root = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Delete a version; the champion is refused. `mlflow gc` removes its files."""
    known = open_registry(root, config)
    known.delete(number)
    print_result({"model": known.name, "deleted": number}, as_json)


def open_registry(root: str | None, config: Path | None) -> Any:
    """Return the registry that options name. Raises PedfracError where there is no such file."""
    from pedfrac.config.loading import load_config
    from pedfrac.config.locations import TrackingConfig, artifact_root, tracking_folder
    from pedfrac.mlflow_runs import missing_store
    from pedfrac.promotion.registry import Registry

    if config is not None:
        settings = load_config(str(config), [])
        tracking, folder = settings.tracking, settings.tracking_folder
    else:
        tracking = TrackingConfig()
        folder = tracking_folder(artifact_root())
    if root is not None:
        folder = tracking_folder(root)
    if missing := missing_store(tracking, folder):
        raise PedfracError(f"{missing}: no such file, so nothing is registered here")
    return Registry.of(tracking, folder)
