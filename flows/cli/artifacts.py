"""The command ``pedfrac artifacts``: what is in a store, whether it is whole, and what may go."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from flows.cli.output import as_table, out, print_result
from pedfrac.errors import PedfracError

artifacts = typer.Typer(
    no_args_is_help=True,
    help="""Look at the artifacts of a folder or of s3://bucket/prefix, and remove old ones.

    Which store: `--root`, else that of `--config`, else PEDFRAC_ARTIFACTS, else `artifacts`.
    A KEY may be cut short where it stays clear, as in `pack/1f0`.
    """,
)
Root = Annotated[str | None, typer.Option("--root", "-r", help="Folder or s3://bucket/prefix")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file that names it")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]
Key = Annotated[str, typer.Argument(help="Key, such as pack/1f0c23…")]


@artifacts.command("list")
def list_(
    kind: Annotated[str | None, typer.Option(help="One kind only, such as report")] = None,
    root: Root = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List the artifacts, the newest first."""
    rows = [_row(artifact.manifest) for artifact in _store(root, config).of_kind(kind)]
    table = as_table("Artifacts", [row | {"size": _in_words(row["size"])} for row in rows])
    print_result({"artifacts": rows}, as_json, [table])


@artifacts.command()
def show(key: Key, root: Root = None, config: Config = None, as_json: AsJson = False) -> None:
    """Show the manifest of an artifact: files, configuration, sources and parents."""
    store = _store(root, config)
    manifest = store.peek(_lineage(store).key(key)).manifest
    found = manifest.model_dump(mode="json") | {"lies_at": store.place(manifest.key)}
    files = [
        {"file": name, "size": _in_words(entry.size), "sha256": entry.sha256}
        for name, entry in manifest.files.items()
    ]
    settings = [
        {"made from": part, "name": name, "value": str(value)}
        for part in ("config", "sources")
        for name, value in found[part].items()
    ] + [
        {"made from": "parents", "name": name, "value": parent.key}
        for name, parent in manifest.parents.items()
    ]
    print_result(found, as_json, [as_table("Files", files), as_table("Made from", settings)])


@artifacts.command()
def verify(
    key: Annotated[str | None, typer.Argument(help="Key; none: all artifacts")] = None,
    root: Root = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Read every file where it is kept and compare it with its hash; exit 1 if one differs."""
    store = _store(root, config)
    lineage = _lineage(store)
    keys = [lineage.key(key)] if key else list(lineage.manifests)
    broken = {key: found for key in keys if (found := store.verify(key))}
    rows = [{"key": key, "changed or missing": ", ".join(files)} for key, files in broken.items()]
    result = {"verified": len(keys) - len(broken), "broken": broken}
    print_result(result, as_json, [as_table("Changed or missing", rows)])
    if broken:
        raise PedfracError(f"{len(broken)} of {len(keys)} artifacts do not verify")


@artifacts.command()
def lineage(key: Key, root: Root = None, config: Config = None, as_json: AsJson = False) -> None:
    """Show what an artifact was made from, and what that was made from."""
    known = _lineage(_store(root, config))
    tree = known.tree(known.key(key))
    if as_json:
        print_result(tree, as_json)
    else:
        out.print(_drawn(tree))


@artifacts.command()
def gc(
    keep_runs: Annotated[int, typer.Option(help="Newest retrainings that are kept")] = 10,
    keep: Annotated[list[str] | None, typer.Option(help="A key to keep; repeatable")] = None,
    older_than: Annotated[str, typer.Option(help="What is younger stays: 30d, 12h, 5m")] = "30d",
    delete: Annotated[bool, typer.Option("--delete", help="Remove; else only say what")] = False,
    root: Root = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Remove artifacts that nothing kept was made from, and what lost writers left.

    Kept are the newest retrainings, what is named or young, all splits, every version that is or
    was the champion, and all that these were made from; and the audit trail of promotions. Without
    `--delete` nothing is removed.
    """
    from pedfrac.pipeline.retention import Rules, carry_out, parse_age, plan_removal

    store = _store(root, config)
    rules = Rules(keep_runs, parse_age(older_than), keep or ())
    plan = plan_removal(store, rules, datetime.now(UTC))
    if delete:
        carry_out(store, plan)
    removed = [_row(manifest) for manifest in plan.removed]
    leftovers = [{"left by lost writers": one.name, "size": one.size} for one in plan.leftovers]
    result: dict[str, Any] = {
        "kept": plan.kept,
        "removed": removed,
        "leftovers": [one.name for one in plan.leftovers],
        "bytes": plan.bytes_freed,
        "deleted": delete,
    }
    kept = [{"kept": key, "since": reason} for key, reason in sorted(plan.kept.items())]
    tables = [
        as_table("Kept", kept),
        as_table("Removed" if delete else "To be removed with --delete", removed),
        as_table("Left by lost writers", leftovers),
    ]
    print_result(result, as_json, tables)


def _store(root: str | None, config: Path | None) -> Any:
    from pedfrac.config.loading import load_config
    from pedfrac.config.locations import artifact_root
    from pedfrac.storage.store import ArtifactStore

    if root is None and config is not None:
        root = load_config(str(config), []).artifact_root
    return ArtifactStore(root or artifact_root())


def _lineage(store: Any) -> Any:
    from pedfrac.storage.lineage import Lineage

    return Lineage.of(store)


def _row(manifest: Any) -> dict[str, Any]:
    from pedfrac.pipeline.retention import size_of

    return {
        "key": manifest.key,
        "created": manifest.created,
        "files": len(manifest.files),
        "size": size_of(manifest),
        "code": manifest.code_version,
    }


def _drawn(tree: dict[str, Any], role: str = "") -> Tree:
    label = f"{role} " if role else ""
    drawn = Tree(Text.assemble(label, (tree["key"], "bold"), f" {tree['created'] or 'removed'}"))
    for name, parent in tree["parents"].items():
        drawn.children.append(_drawn(parent, name))
    return drawn


def _in_words(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
