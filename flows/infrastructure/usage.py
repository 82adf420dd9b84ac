"""What a retraining's children took of the machines: hours of a device, and hours in a queue."""

from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.runtime import flow_run


def show_usage() -> dict[str, float]:
    """Show a table of the children of the run under way; return their hours, for MLflow.

    A run that another retraining began is that one's. Nothing is shown where there are none.
    """
    own = FlowRunFilterParentFlowRunId(any_=[flow_run.id])
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=own))
    runs = [one for one in runs if one.work_pool_name]
    if not runs:
        return {}
    hours = hours_of(runs)
    create_table_artifact(
        [_row(one) for one in sorted(runs, key=lambda one: str(one.start_time))],
        key="device-hours",
        description=" and ".join(
            f"{value:.2f} {name.replace('_', ' ')}" for name, value in hours.items()
        ),
    )
    return hours


def hours_of(runs: Sequence[FlowRun]) -> dict[str, float]:
    """Return the hours that runs held a device, and those that they waited for one."""
    return {
        "device_hours": sum(one.total_run_time.total_seconds() for one in runs) / 3600,
        "queue_hours": sum(_waited(one) for one in runs) / 3600,
    }


def _waited(run: FlowRun) -> float:
    if run.start_time is None or run.expected_start_time is None:
        return 0.0
    return max(0.0, (run.start_time - run.expected_start_time).total_seconds())


def _row(run: FlowRun) -> dict[str, Any]:
    return {
        "run": run.name,
        "pool": run.work_pool_name,
        "ended": run.state.name if run.state else "",
        "hours on a device": round(run.total_run_time.total_seconds() / 3600, 4),
        "hours in the queue": round(_waited(run) / 3600, 4),
    }
