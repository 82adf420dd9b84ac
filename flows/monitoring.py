"""Monitoring as a flow, on a schedule: a change becomes an event.

Automations of the server listen for the event and decide what to do.
"""

from datetime import UTC, datetime, timedelta

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
)
from prefect.events import emit_event

from pedfrac.config.monitoring import MonitorConfig
from pedfrac.pipeline.monitoring import Monitored
from tasks.monitoring import monitor_window

EVENT = "pedfrac.drift"
RETRAINING = "retrain-after-drift"  # the deployment that the event starts


@flow(name="monitor")
def monitor(config: MonitorConfig, quiet_days: float = 7) -> Monitored:
    """Compare images that were scored with those that made the bundle; emit an event of a change.

    Args:
        config: Which scores, by which bundle, and when a change is one
        quiet_days: At most one retraining is requested within this number of days
    """
    found = monitor_window(config)
    if found.drifted:
        _tell(config, found, "recent" if _retrained_since(quiet_days) else "due")
    return found


def _tell(config: MonitorConfig, found: Monitored, retraining: str) -> None:
    """Emit the event; the automation listens for those by which a retraining is due."""
    get_run_logger().warning("%s. Retraining: %s", found.said, retraining)
    emit_event(
        event=EVENT,
        resource={
            "prefect.resource.id": f"pedfrac.bundle.{found.bundle[:16]}",
            "prefect.resource.name": config.bundle,
            "pedfrac.retraining": retraining,
        },
        payload=found.model_dump(mode="json"),
    )


def _retrained_since(days: float) -> bool:
    """Return whether a retraining was requested or started in the last ``days``."""
    since = datetime.now(UTC) - timedelta(days=days)
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[RETRAINING])),
            flow_run_filter=FlowRunFilter(
                expected_start_time=FlowRunFilterExpectedStartTime(after_=since)
            ),
            limit=1,
        )
    return bool(runs)
