"""Prepare a server: pools, queues and automations as described in deployments/.

Can be repeated at any time; existing ones are updated.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from flows.infrastructure.alerts import blocks_of_variables
from pedfrac.config.operator import refuse_example_secrets
from pedfrac.errors import PedfracError

# what an automation tells is of a run, or of a pool
MESSAGE = """{{ automation.description }}
{% set it = flow_run or work_pool %}{% if it %}{{ it.name }} {{ it.state.message }}
{{ it|ui_url or "" }}{% else %}{{ event.payload.said or "" }}{% endif %}"""


def prepare_server(folder: Path, kind: str, notify: str | None) -> list[dict[str, str]]:
    """Create or update pools of a kind (process, docker, kubernetes), queues and automations.

    ``folder`` holds pools.yaml, automations.yaml and templates/. ``notify``: the slug of a
    notification block, such as ``slack-webhook/alerts``, or ``none``; left out, alerts go where
    the variables say (``alerts``), or where they went before. Returns a row for each thing made.
    """
    refuse_example_secrets()
    pools = _read(folder / "pools.yaml")["pools"]
    automations = _read(folder / "automations.yaml")["automations"]
    made = []
    with get_client(sync_client=True) as client:
        for name, pool in pools.items():
            client.create_work_pool(
                WorkPoolCreate(
                    name=name,
                    type=kind,
                    description=pool["description"],
                    base_job_template=pool_template(folder, kind, pool),
                ),
                overwrite=True,
            )
            made.append({"kind": f"{kind} pool", "name": name})
            for queue, settings in pool["queues"].items():
                _make_queue(client, name, queue, settings)
                made.append({"kind": "queue", "name": f"{name}/{queue}"})
        actions = _notification(client, notify) if notify else _by_variables()
        for automation in automations:
            _make_automation(client, automation, actions)
            made.append({"kind": "automation", "name": automation["name"]})
    return made


def pool_template(folder: Path, kind: str, pool: dict[str, Any]) -> dict[str, Any]:
    """Return the base job template of a kind with the pool's own defaults of its variables.

    Raises PedfracError for a kind without a template and a default of no variable.
    """
    template: dict[str, Any] = _read(folder / "templates" / f"{kind}.json")
    variables = template["variables"]["properties"]
    for name, value in pool.get("defaults", {}).get(kind, {}).items():
        if name not in variables:
            raise PedfracError(
                f"pools.yaml: defaults.{kind}.{name}: the template has no such variable; "
                f"it has {', '.join(sorted(variables))}"
            )
        variables[name]["default"] = value
    return template


def _make_queue(client: SyncPrefectClient, pool: str, name: str, settings: dict[str, Any]) -> None:
    try:
        queue = client.read_work_queue_by_name(name, work_pool_name=pool)
    except ObjectNotFound:
        client.create_work_queue(name, work_pool_name=pool, **settings)
    else:
        client.update_work_queue(queue.id, **settings)


def _make_automation(
    client: SyncPrefectClient, described: dict[str, Any], actions: list[dict[str, Any]]
) -> None:
    """Create or update an automation; ``actions`` are for one that has none of its own."""
    name = str(described.get("name"))
    there = client.read_automations_by_name(name)
    before: list[Any] = [
        one for found in there for one in found.actions if one.type == "send-notification"
    ]
    given = actions or before or [{"type": "do-nothing"}]
    try:
        automation = AutomationCore.model_validate({"actions": given} | described)
    except ValidationError as error:
        raise PedfracError(f"automations.yaml: {name}: {error}") from None
    if there:
        client.update_automation(there[0].id, automation)
    else:
        client.create_automation(automation)


def _by_variables() -> list[dict[str, Any]]:
    return [_telling(block) for block in blocks_of_variables()]


def _notification(client: SyncPrefectClient, notify: str) -> list[dict[str, Any]]:
    """Return the action that notifies a person, or one that only emits an event."""
    if notify == "none":
        return [{"type": "do-nothing"}]
    kind, _, name = notify.partition("/")
    try:
        block = client.read_block_document_by_name(name, kind)
    except ObjectNotFound:
        raise PedfracError(
            f"--notify {notify}: the server has no such block; make one under Blocks in its UI "
            "and name it as TYPE/NAME, such as slack-webhook/alerts"
        ) from None
    return [_telling(str(block.id))]


def _telling(block: str) -> dict[str, Any]:
    return {
        "type": "send-notification",
        "block_document_id": block,
        "subject": "{{ automation.name }}",
        "body": MESSAGE,
    }


def _read(path: Path) -> Any:
    try:
        text = path.read_text()
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise PedfracError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PedfracError(f"{path}: cannot be read ({error})") from None
