"""What people set in Prefect's UI, kept when deployments are made again: a merge of three sides.

The files as they were deployed last, the files now, and the server. Not here: talking to it.
"""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

Path = tuple[str, ...]
Flat = dict[Path, Any]
_ABSENT: Any = object()
_LETTERS = 6  # of each digest in the record of what was deployed


@dataclass(frozen=True)
class Difference:
    """A value that was set in the UI, and what became of it when it was deployed again."""

    deployment: str
    path: Path
    ui: Any
    files: Any
    outcome: Literal["kept", "overridden"]

    def row(self) -> dict[str, str]:
        """Return it as a row of words."""
        return {
            "deployment": self.deployment,
            "setting": ".".join(self.path),
            "in the UI": _said(self.ui),
            "in the files": _said(self.files),
            "outcome": self.outcome,
        }


def merge(
    name: str,
    files: Flat,
    server: Flat,
    before: str | None,
    implied: Flat,
    reset: bool = False,
) -> tuple[Flat, list[Difference]]:
    """Return what to deploy, and the differences that were set in the UI.

    A value that was changed in the UI alone is kept; where files and UI both changed it, or with
    ``reset``, the files win. ``before``: the record of the files as deployed last (``record``);
    None: unknown, and whatever differs counts as set in the UI. ``implied``: values that follow
    from the files' own by defaults, which a form sends along.
    """
    made: Flat = {}
    told: list[Difference] = []
    known = _Known(before)
    for path in files.keys() | server.keys():
        wanted, there = files.get(path, _ABSENT), server.get(path, _ABSENT)
        by_person = not _same(wanted, there) and known.set_by_person(path, wanted, there)
        if by_person and wanted is _ABSENT and _same(there, implied.get(path, _ABSENT)):
            by_person = False
        keep = by_person and not reset and not known.changed_in_files(path, wanted)
        if by_person:
            outcome: Literal["kept", "overridden"] = "kept" if keep else "overridden"
            told.append(Difference(name, path, there, wanted, outcome))
        value = there if keep else wanted
        if value is not _ABSENT:
            made[path] = value
    return made, sorted(told, key=lambda one: one.path)


class _Known:
    """The files as they were deployed last, by digests."""

    def __init__(self, before: str | None):
        self._known = None if before is None else _parse(before)

    def set_by_person(self, path: Path, wanted: Any, there: Any) -> bool:
        """Whether the server's value came neither from these files nor from the last ones."""
        if self._known is None:
            return there is not _ABSENT
        was = self._known.get(_short(path))
        if there is _ABSENT:
            return was is not None and wanted is not _ABSENT
        return was != _short(there)

    def changed_in_files(self, path: Path, wanted: Any) -> bool:
        """Whether the files say something else than when they were deployed last."""
        if self._known is None or wanted is _ABSENT:
            return False
        return self._known.get(_short(path)) != _short(wanted)


def record(files: Flat) -> str:
    """Return the files' values by digests, short enough for a variable of Prefect."""
    return "".join(sorted(_short(path) + _short(value) for path, value in files.items()))


def _parse(text: str) -> dict[str, str]:
    whole = 2 * _LETTERS
    parts = [text[start : start + whole] for start in range(0, len(text), whole)]
    return {part[:_LETTERS]: part[_LETTERS:] for part in parts}


def _short(value: Any) -> str:
    text = json.dumps(_plain(value), sort_keys=True, default=str)
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()[:_LETTERS]


def _same(one: Any, other: Any) -> bool:
    if one is _ABSENT or other is _ABSENT:
        return one is other
    return bool(_plain(one) == _plain(other))


def _plain(value: Any) -> Any:
    """Return a value as JSON would have it, whole numbers alike whichever type they have."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _said(value: Any) -> str:
    return "–" if value is _ABSENT else json.dumps(value, default=str)


def flat(tree: Mapping[str, Any], path: Path = ()) -> Flat:
    """Return nested settings by their paths; lists and empty mappings are values."""
    found: Flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, (*path, name))
        else:
            found[(*path, name)] = value
    return found


def nested(values: Flat) -> dict[str, Any]:
    """Return what ``flat`` was made from."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        branch[path[-1]] = value
    return tree


def of_files(described: Mapping[str, Any]) -> Flat:
    """Return what a deployment of prefect.yaml says, as far as a person may set it in the UI."""
    pool, limit = described["work_pool"], described.get("concurrency_limit")
    tree: dict[str, Any] = {
        "parameters": described["parameters"],
        "job_variables": pool.get("job_variables", {}),
        "work_queue_name": pool["work_queue_name"],
        "tags": sorted(described.get("tags", [])),
        "paused": bool(described.get("paused", False)),
        "concurrency_limit": limit["limit"] if limit else None,
        "schedules": {
            one["slug"]: {name: value for name, value in one.items() if name != "slug"}
            for one in described.get("schedules", [])
        },
    }
    return {path: value for path, value in flat(tree).items() if value != {}}


def of_server(there: DeploymentResponse) -> Flat:
    """Return the same of a deployment on the server."""
    limit = there.global_concurrency_limit
    tree: dict[str, Any] = {
        "parameters": there.parameters,
        "job_variables": there.job_variables or {},
        "work_queue_name": there.work_queue_name,
        "tags": sorted(there.tags),
        "paused": there.paused,
        "concurrency_limit": limit.limit if limit else None,
        "schedules": {
            one.slug or f"added-{str(one.id)[:8]}": _rule(one) for one in there.schedules
        },
    }
    return {path: value for path, value in flat(tree).items() if value != {}}


def _rule(one: Any) -> dict[str, Any]:
    rule: dict[str, Any] = {"active": one.active}
    if isinstance(one.schedule, CronSchedule):
        rule["cron"] = one.schedule.cron
    elif isinstance(one.schedule, IntervalSchedule):
        rule["interval"] = one.schedule.interval.total_seconds()
    else:
        rule["rrule"] = one.schedule.rrule
    zone = one.schedule.timezone
    if zone and not (zone == "UTC" and "interval" in rule):
        rule["timezone"] = zone
    return rule | ({"parameters": one.parameters} if one.parameters else {})


def laid_into(described: dict[str, Any], values: Flat) -> dict[str, Any]:
    """Return a deployment of prefect.yaml that says the values of ``of_files``."""
    tree = nested(values)
    made = described | {"parameters": tree.get("parameters", {}), "tags": tree["tags"]}
    made["work_pool"] = described["work_pool"] | {
        "work_queue_name": tree["work_queue_name"],
        "job_variables": tree.get("job_variables", {}),
    }
    made["paused"] = tree["paused"]
    if tree["concurrency_limit"] is None:
        made.pop("concurrency_limit", None)
    else:
        rules = described.get("concurrency_limit") or {"collision_strategy": "CANCEL_NEW"}
        made["concurrency_limit"] = rules | {"limit": tree["concurrency_limit"]}
    made["schedules"] = [
        {"slug": slug, **rule}
        for slug, rule in tree.get("schedules", {}).items()
        if rule.keys() & {"cron", "interval", "rrule"}  # else it was deleted in the UI
    ]
    return made
