"""Asking Prefect whether the run under way was cancelled.

A worker that could not reach its server kills nobody: the run itself has to ask.
"""

import logging

import httpx
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext, SyncClientContext

from pedfrac.errors import PedfracError
from tasks.outage import patiently

logger = logging.getLogger(__name__)


class RunCancelled(PedfracError):
    """The flow run was cancelled; what it has saved so far is kept for another run."""


def refuse_cancelled() -> None:
    """Raise RunCancelled if the run was cancelled; an unreachable server counts as no."""
    try:
        _ask()
    except httpx.HTTPError as error:
        logger.warning("Prefect cannot be asked whether this run was cancelled: %s", error)


def refuse_cancelled_surely() -> None:
    """Raise RunCancelled if the run was cancelled, waiting for a server that is away.

    Raises PedfracError where it stays away: what may have been cancelled is not to be published.
    """
    patiently(_ask)


def _ask() -> None:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    # the run's own client, since to make one takes longer than to ask
    with SyncClientContext.get_or_create() as here:
        state = here.client.read_flow_run(context.flow_run.id).state
    if state is not None and state.type in (StateType.CANCELLED, StateType.CANCELLING):
        raise RunCancelled(f"{context.flow_run.name}: was cancelled")
