"""Schedules that stay as a person left them: a step that prefect.yaml takes when it deploys."""

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
