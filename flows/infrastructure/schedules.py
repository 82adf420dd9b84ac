"""Schedules and automations that stay as a person left them: steps of prefect.yaml's deploying."""

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound


def as_left(deployment: str, slug: str) -> dict[str, bool]:
    """Return as ``active`` whether a schedule is on: as the server has it, or off if it has none.

    ``deployment`` is named FLOW/DEPLOYMENT.
    """
    with get_client(sync_client=True) as client:
        try:
            schedules = client.read_deployment_by_name(deployment).schedules
        except ObjectNotFound:
            schedules = []
    return {"active": any(one.active for one in schedules if one.slug == slug)}


def automation_as_left(name: str) -> dict[str, bool]:
    """Return as ``enabled`` whether an automation is on: as the server has it, or on if it is new.

    Deploying makes a deployment's automations anew.
    """
    with get_client(sync_client=True) as client:
        found = client.read_automations_by_name(name)
    return {"enabled": all(one.enabled for one in found)}
