"""Prediction as a flow: for a worker with a GPU, or on a schedule."""

from typing import Any

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.runtime import deployment
from prefect.states import Completed
from prefect.types._datetime import now

from pedfrac.config.serving import PredictionConfig
from pedfrac.serving.images import NoImage
from tasks import prediction


@flow(name="predict")
def predict(config: PredictionConfig, watch: bool = False) -> str:
    """Score images with a bundle into a table; return how many were scored.

    Args:
        config: Which images, by which bundle, and where the scores go
        watch: End well where no image has come yet, or where the next run is due already, as a
            run on a schedule should
    """
    if watch and _next_is_due():
        skipped: Any = Completed(name="Skipped", message="The next run is due already")
        return skipped
    try:
        return prediction.predict(config)
    except NoImage as error:
        if not watch:
            raise
        state: Any = Completed(name="No image yet", message=str(error), data=str(error))
        return state


def _next_is_due() -> bool:
    """Return whether runs of the same deployment have gathered while another one was scoring."""
    if deployment.id is None:
        return False
    due = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=now("UTC")),
    )
    own = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    with get_client(sync_client=True) as client:
        return bool(client.read_flow_runs(flow_run_filter=due, deployment_filter=own, limit=1))
