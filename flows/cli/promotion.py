"""The commands ``promote``, ``rollback`` and ``promotions``.

The flow that asks for approval in Prefect's UI is flows/promotion.py.
"""

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.output import as_table, out, print_result
from pedfrac.errors import PedfracError

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file of a retraining or a promotion")
]
Root = Annotated[str | None, typer.Option("--root", "-r", help="Folder or s3://bucket/prefix")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="One value, such as promotion.gate.patients=5; may be repeated"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]
Name = Annotated[str, typer.Option(help="Who decides; kept for good in the audit trail")]
Reason = Annotated[str, typer.Option(help="Why; kept for good in the audit trail")]


def promote(
    version: Annotated[
        int | None, typer.Option(help="Version; left out: the one with the alias challenger")
    ] = None,
    approve: Annotated[bool, typer.Option("--approve", help="Make it the champion")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Write down that it is not")] = False,
    name: Name = "",
    reason: Reason = "",
    config: Config = None,
    root: Root = None,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Compare a version with the champion, and let a person decide.

    Without --approve or --reject it shows what the gate says. What the gate refuses cannot be
    approved: the command then ends with exit code 1, and the refusal is in the audit trail.
    """
    from pedfrac.promotion import comparison
    from pedfrac.promotion.page import in_rows

    if approve and reject:
        raise PedfracError("promote: choose --approve or --reject")
    if (approve or reject) and not (name.strip() and reason.strip()):
        raise PedfracError("promote: --name and --reason must be given; the audit trail keeps them")
    settings = _settings(config, root, overrides)
    decided = comparison.compare(settings, comparison.find_challenger(settings, version).number)
    key, decision = decided
    automatic = comparison.decides_alone(settings, decision) and not reject
    result: dict[str, Any] = {"decision": decision.model_dump(mode="json"), "key": key}
    result |= {"page": f"{comparison.store_of(settings).place(key)}/{comparison.PAGE}"}
    if not decision.passed:
        comparison.note_refusal(settings, decided)
    elif approve or reject or automatic:
        by, why = (name, reason) if approve or reject else ("pedfrac", "all criteria hold")
        record = comparison.settle(
            settings,
            decided,
            not reject,
            by,
            why,
            f"command {uuid.uuid4().hex}",
            automatic=not (approve or reject),
        )
        result["record"] = record.model_dump(mode="json")
    tables = [] if as_json else [as_table(decision.title, in_rows(decision))]
    print_result(result, as_json, tables)
    if not decision.passed:
        raise PedfracError(decision.in_words())
    if not as_json:
        how = f"pedfrac promote --version {decision.challenger} --approve|--reject --name --reason"
        out.print(_told(result) or f"A person decides: {how}", soft_wrap=True)


def rollback(
    to: Annotated[int, typer.Option(help="Version that was the champion before")],
    name: Name = "",
    reason: Reason = "",
    config: Config = None,
    root: Root = None,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Make an earlier champion the champion again; the gate is not asked."""
    from pedfrac.promotion import comparison, promotion
    from pedfrac.promotion.audit_log import Wish

    settings = _settings(config, root, overrides)
    wish = Wish("rollback", to, name, reason, f"command {uuid.uuid4().hex}")
    record = promotion.rollback(
        comparison.store_of(settings), comparison.registry_of(settings), wish
    )
    result = {"record": record.model_dump(mode="json")}
    print_result(result, as_json)
    if not as_json:
        out.print(_told(result))


def promotions(
    config: Config = None, root: Root = None, overrides: Set = None, as_json: AsJson = False
) -> None:
    """Show the audit trail: each promotion, rejection, refusal, expiry and rollback.

    Exit code 1 if the champion was changed or deleted outside pedfrac.
    """
    from pedfrac.promotion import audit_log, comparison, promotion

    settings = _settings(config, root, overrides)
    store, registry = comparison.store_of(settings), comparison.registry_of(settings)
    lost = promotion.reconcile(store, registry)
    records = audit_log.records_of(store, registry.name)
    rows = [
        {
            "number": one.number,
            "at": one.at,
            "what": one.event,
            "version": one.version,
            "champion": f"{_number(one.champion_before)} → {_number(one.champion_after)}",
            "by": f"{one.by} (automatic)" if one.automatic else one.by,
            "reason": one.reason,
            "decision": one.decision or "",
            "criteria changed": "; ".join(one.criteria_changed),
        }
        for one in records
    ]
    result = {
        "model": registry.name,
        "champion": audit_log.champion_of(records),
        "lost": lost,
        "records": [one.model_dump(mode="json") for one in records],
    }
    print_result(result, as_json, [as_table(f"Promotions of {registry.name}", rows)])
    if lost:
        raise PedfracError(lost)


def _settings(config: Path | None, root: str | None, overrides: list[str] | None) -> Any:
    """Return the configuration. Raises PedfracError where nothing was ever registered."""
    from pedfrac.config.loading import load_promotion
    from pedfrac.mlflow_runs import missing_store

    given = [f"artifacts={root}"] if root else []
    settings = load_promotion(str(config) if config else None, [*given, *(overrides or [])])
    if missing := missing_store(settings.tracking, settings.tracking_folder):
        raise PedfracError(f"{missing}: no such file, so nothing is registered here")
    return settings


def _told(result: dict[str, Any]) -> str:
    from pedfrac.promotion.audit_log import Record

    return Record.model_validate(result["record"]).in_words() if "record" in result else ""


def _number(version: int | None) -> str:
    return "none" if version is None else str(version)
