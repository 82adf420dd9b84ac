"""A child flow run by a worker of a pool: started once, awaited through outages, restarted if its
node is lost.
"""

import itertools
import logging
import time
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.types._datetime import now
from pydantic import BaseModel

from flows.infrastructure.handover import explain_missing
from pedfrac.config.retrain import RetrainConfig
from pedfrac.errors import PedfracError
from pedfrac.storage.inputs import Inputs
from tasks.outage import patiently

logger = logging.getLogger(__name__)
POLL = 2.0  # seconds between looks at a child


class Work(Protocol):
    """The artifact that a child makes; its key is known before it exists."""

    @property
    def config(self) -> RetrainConfig:
        """What it is part of."""

    @property
    def name(self) -> str:
        """What it is, in words."""

    @property
    def inputs(self) -> Inputs:
        """What it is made from."""

    @property
    def key(self) -> str:
        """The key under which it will lie."""

    @property
    def done(self) -> bool:
        """Whether it is there."""


def run_deployed(name: str, child: Flow[..., str], given: dict[str, Any], work: Work) -> None:
    """Run a child as the deployment of its name until its artifact exists.

    A try's idempotency key is made of the artifact's key and a number, so that a parent that was
    killed and begins again, or a second retraining of the same, meets the run that is under way
    instead of starting its twin. A try that crashed is followed by another, up to
    ``runtime.attempts``. The child is given what the parent takes for its inputs, and refuses
    before it begins where it would make anything else. Raises PedfracError with the child's reason
    where it failed, and with what differs where it made something else.
    """
    given = given | {"expected": work.inputs}
    begun, lost = now("UTC"), 0
    for number in itertools.count(1):
        run = patiently(partial(_submit, name, child, given, f"{work.key}/{number}"))
        state = _wait(run)
        if work.done:
            return
        if state.timestamp < begun or _cancelled_by_another(run, state):
            continue  # a try of an earlier retraining, or of one that was called off
        if state.type != StateType.CRASHED:
            raise PedfracError(_reason(name, state, work))
        lost += 1
        logger.warning(
            "%s: try %d of %d crashed (%s)",
            *(name, lost, work.config.runtime.attempts, state.message),
        )
        if lost >= work.config.runtime.attempts:
            raise PedfracError(f"{name}: crashed {lost} times, the last time: {state.message}")


def _submit(name: str, child: Flow[..., str], given: dict[str, Any], key: str) -> FlowRun:
    deployment = f"{child.name}/{child.name}"
    parent = FlowRunContext.get()
    queue = (parent.flow_run.work_queue_name if parent and parent.flow_run else None) or ""
    try:
        return run_deployment(  # type: ignore[return-value]
            deployment,
            parameters=as_json(given),
            flow_run_name=f"{child.name.partition('-')[0]} {name}",
            idempotency_key=key,
            # a person's click comes before the schedule on the children's pool, too
            work_queue_name=queue.removeprefix("waiting-") or None,
            timeout=0,
        )
    except ObjectNotFound:
        raise PedfracError(
            f"runtime.dispatch is 'deployments', but the server has no deployment {deployment}; "
            "'pedfrac deploy' makes it"
        ) from None


def as_json(given: dict[str, Any]) -> dict[str, Any]:
    """Return a child's parameters as they travel to it."""
    return {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for name, value in given.items()
    }


def _wait(run: FlowRun) -> State[Any]:
    """Return the state in which a run ends; log each on the way, with what it waits for."""
    logged = None
    while True:
        found = patiently(lambda: _read(run.id))
        state = found.state
        if state is not None and state.name != logged:
            logged = state.name
            logger.info("run %s of %s: %s", run.name, found.work_pool_name, _in_words(state))
        if state is not None and state.is_final():
            return state
        time.sleep(POLL)


def _in_words(state: State[Any]) -> str:
    if state.is_scheduled():
        return "waits for a free slot"
    told = f" ({state.message})" if state.message else ""
    return f"{(state.name or '').lower()}{told}"


def _read(run: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run)


def _cancelled_by_another(run: FlowRun, state: State[Any]) -> bool:
    """Return whether a child was cancelled with a parent that is not this one."""
    here = FlowRunContext.get()
    if not state.is_cancelled() or run.parent_task_run_id is None or here is None:
        return False
    with get_client(sync_client=True) as client:
        parent = client.read_task_run(run.parent_task_run_id).flow_run_id
    return here.flow_run is not None and parent != here.flow_run.id


def _reason(name: str, state: State[Any], work: Work) -> str:
    if state.is_completed():
        return explain_missing(name, state, work.inputs, work.config)
    _, _, reason = (state.message or "").rpartition("PedfracError: ")
    ended = state.name.lower() if state.name else "ended"
    return reason if reason.startswith(name) else f"{name}: its run {ended}: {reason}"
