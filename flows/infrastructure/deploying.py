"""The command ``deploy``: all flows as deployments, with the operator's file and what the UI set.

Everything is validated before anything is sent; then Prefect's own ``prefect deploy`` does it.
"""

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.variables import Variable

from flows.infrastructure import kept
from flows.infrastructure.deployments import CONFIG, FILE, Deployment, read_deployments
from flows.infrastructure.kept import Difference
from pedfrac.config.loading import read_yaml
from pedfrac.config.operator import load_operator, operator_file, refuse_example_secrets
from pedfrac.config.retrain import RetrainConfig
from pedfrac.errors import PedfracError

logger = logging.getLogger(__name__)
RECORD = "pedfrac_deployed_{}"  # variable on the server: what the files said when deployed last


def deploy(
    folder: Path, names: Sequence[str] = (), *, reset: bool = False, dry: bool = False
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Make all deployments of a folder's prefect.yaml, or those named, on the Prefect server.

    Returns a row for each deployment, and one for each value that was set in the UI. ``reset``:
    the files win over the UI. ``dry``: nothing is sent. Raises PedfracError before anything is
    sent where a value is invalid, missing, or an example's.
    """
    refuse_example_secrets()
    where = str(operator_file() or folder / FILE)
    wanted = _named(read_deployments(folder, load_operator(), where), names)
    _warn_of_weights(wanted)
    records, told = {}, []
    with get_client(sync_client=True) as client:
        try:
            for one in wanted:
                records[RECORD.format(one.name.replace("-", "_"))] = _record(one)
                told += _keep(client, one, reset, where)
        except httpx.TransportError as error:
            raise PedfracError(f"{client.api_url}: no Prefect server answers ({error})") from None
    if not dry:
        _send(folder, wanted)
        for name, value in records.items():
            Variable.set(name, value, tags=["pedfrac"], overwrite=True)
    return [_row(one) for one in wanted], [one.row() for one in told]


def _named(all_of_them: list[Deployment], names: Sequence[str]) -> list[Deployment]:
    known = [one.name for one in all_of_them]
    for name in names:
        if name not in known:
            raise PedfracError(f"--name {name}: there is no such deployment; {', '.join(known)}")
    return [one for one in all_of_them if not names or one.name in names]


def _warn_of_weights(wanted: list[Deployment]) -> None:
    """Say which pretrained weights cannot be reached: a training would fail hours later."""
    from pedfrac.models.weights import hub_backbones, unreachable_weights  # seconds to import

    pairs: dict[tuple[str, str], None] = {}
    for one in wanted:
        if get_type_hints(one.flow.fn).get(CONFIG) is RetrainConfig:
            config = RetrainConfig.model_validate(one.described["parameters"][CONFIG])
            pairs |= dict.fromkeys(hub_backbones(config).items())
    for line in unreachable_weights(pairs):
        logger.warning("%s", line)


def _record(one: Deployment) -> str:
    return kept.record(kept.of_files(one.described))


def _keep(client: SyncPrefectClient, one: Deployment, reset: bool, where: str) -> list[Difference]:
    """Lay what was set in the UI into what is to be deployed; return it."""
    _keep_automations(client, one)
    try:
        there = client.read_deployment_by_name(one.path)
    except ObjectNotFound:
        return []
    before = Variable.get(RECORD.format(one.name.replace("-", "_")), default=None)
    files = kept.of_files(one.described)
    implied = kept.flat({"parameters": one.in_full()})
    made, told = kept.merge(one.name, files, kept.of_server(there), _text(before), implied, reset)
    one.described = kept.laid_into(one.described, made)
    if told:
        one.check(f"{where}, with what was set in the UI (--reset gives that up)")
    return told


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _keep_automations(client: SyncPrefectClient, one: Deployment) -> None:
    """Keep a deployment's automations on or off as they were; deploying recreates them."""
    for trigger in one.described.get("triggers", []):
        there = client.read_automations_by_name(trigger["name"])
        trigger["enabled"] = all(found.enabled for found in there)


def _send(folder: Path, wanted: Sequence[Deployment]) -> None:
    """Have Prefect's own command deploy what is described."""
    whole = read_yaml(folder / FILE)
    rest = {name: whole[name] for name in ("name", "pull")}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / FILE
        described = rest | {"deployments": [one.described for one in wanted]}
        file.write_text(yaml.safe_dump(described, sort_keys=False, allow_unicode=True))
        command = ["prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env=os.environ,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()[-5:]
        raise PedfracError(f"prefect deploy: {' '.join(line.strip() for line in lines)}")


def _row(one: Deployment) -> dict[str, str]:
    pool = one.described["work_pool"]
    schedules = [
        f"{_when(rule)} ({'on' if rule.get('active') else 'off'})"
        for rule in one.described.get("schedules", [])
    ]
    return {
        "deployment": one.path,
        "pool": f"{pool['name']}/{pool['work_queue_name']}",
        "schedule": ", ".join(schedules),
        "to be given": ", ".join(one.missing),
    }


def _when(rule: dict[str, Any]) -> str:
    return rule.get("cron") or rule.get("rrule") or f"every {rule['interval']:g} s"
