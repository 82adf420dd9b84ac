"""The flow ``promote``: a challenger before the gate, and then before a person.

While it waits for the person it takes no slot: the run is suspended, and begins again from the top
once the form is submitted. Not here: what the commands do that promote without a server (champion).
"""

import logging
import time
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from prefect.states import Completed, Failed
from prefect.types._datetime import now
from pydantic import Field

from pedfrac.config.promotion import PromoteConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.errors import PedfracError
from pedfrac.promotion import comparison
from pedfrac.promotion.audit_log import Record
from pedfrac.promotion.decision import Decision
from tasks.outage import patiently
from tasks.promotion import ask_gate, write_down

logger = logging.getLogger(__name__)

DEPLOYMENT = "promote/promote"
NOT_PROMOTED = "Not promoted"
NAMES = {
    "promotion": "Promoted",
    "rejection": "Rejected",
    "refusal": "Refused by the gate",
    "expiry": NOT_PROMOTED,
}


class Approval(RunInput):
    """The form that a person fills in."""

    decision: Literal["approve", "reject"] = Field(
        title="Decision", description="Approve: this version becomes the champion at once"
    )
    reason: str = Field(
        title="Reason", min_length=1, pattern=r"\S", description="Kept for good in the audit trail"
    )
    name: str = Field(
        title="Your name",
        min_length=1,
        pattern=r"\S",
        description="Kept for good in the audit trail",
    )


@flow(name="promote")
def promote(config: PromoteConfig, version: int | None = None, undecided: str | None = None) -> Any:
    """Let a challenger become the champion if the gate lets it through and a person approves.

    Args:
        config: Where versions and artifacts lie, what must hold, and who decides until when
        version: Number of the version; none: the one that holds the alias challenger
        undecided: Id of a run whose deadline has passed; set by the deadline run only
    """
    if undecided is not None:
        return _end_undecided(config, undecided)
    request = _request(flow_run.id)
    challenger = comparison.pin_challenger(config, request, version)
    if record := comparison.find_record(config, request):
        return _as_state(record)
    decided = ask_gate(config, challenger)
    if not decided[1].passed:
        return _as_state(comparison.note_refusal(config, decided))
    if comparison.decides_alone(config, decided[1]):
        reason = "all criteria of the gate hold"
        return _as_state(
            write_down(config, decided, True, "pedfrac", reason, request, automatic=True)
        )
    given = _ask_person(config, *decided)
    record = write_down(
        config, decided, given.decision == "approve", given.name, given.reason, request
    )
    _call_off(config, decided[0])
    return _as_state(record)


def begin_promotion(config: RetrainConfig, version: int) -> None:
    """Begin a promotion of a version on the pool of the deployment, and do not wait for it."""
    parts = config.model_dump(mode="json", include=set(PromoteConfig.model_fields))
    try:
        begun: Any = run_deployment(
            DEPLOYMENT,
            parameters={"config": parts, "version": version},
            idempotency_key=f"promote/{flow_run.id}/{version}",
            flow_run_name=f"promote version {version}",
            timeout=0,
            as_subflow=False,
        )
    except ObjectNotFound:
        logger.warning(
            "version %d waits: the server has no deployment %s, which promotes it",
            *(version, DEPLOYMENT),
        )
        return
    logger.info("run %s promotes version %d if gate and person let it", begun.name, version)


def _ask_person(config: PromoteConfig, key: str, decision: Decision) -> Approval:
    """Return the filled-in form; until then the run is suspended and its process ends."""
    if deployment.id is None:
        raise PedfracError(
            f"a person decides on version {decision.challenger}: run this as a deployment, or "
            f"'pedfrac promote --version {decision.challenger}' with --approve or --reject"
        )
    deadline = _deadline_run(config, key).expected_start_time
    form = Approval.with_initial_data(description=_description(decision, deadline))
    left = max(1, int(deadline.timestamp() - time.time())) if deadline else None
    given: Any = suspend_flow_run(wait_for_input=form, timeout=left, key=key.replace("/", "-"))
    return given


def _description(decision: Decision, deadline: datetime | None) -> str:
    from pedfrac.promotion.page import in_brief  # matplotlib is slow to import

    until = f"{deadline:%d %B %Y, %H:%M} UTC" if deadline else "any time"
    return (
        f"Shall version {decision.challenger} become the champion? The gate lets it through. "
        f"Undecided until {until}, it is not promoted. All metrics: artifact *gate* of this run."
        f"\n\n{in_brief(decision)}"
    )


def _deadline_run(config: PromoteConfig, key: str) -> FlowRun:
    """Return the run that ends this one at the deadline; started once per decision."""
    when = now("UTC") + timedelta(hours=config.promotion.deadline_hours)
    run: Any = patiently(
        lambda: run_deployment(
            UUID(str(deployment.id)),
            parameters={"config": config.model_dump(mode="json"), "undecided": flow_run.id},
            scheduled_time=when,
            idempotency_key=f"deadline/{flow_run.id}/{key}",
            flow_run_name=f"deadline of {flow_run.name}",
            timeout=0,
            as_subflow=False,
        )
    )
    return run


def _call_off(config: PromoteConfig, key: str) -> None:
    """Delete the run of a deadline that is no longer needed."""
    run = _deadline_run(config, key)
    if run.state is not None and run.state.is_scheduled():
        with get_client(sync_client=True) as client:
            client.delete_flow_run(run.id)


def _end_undecided(config: PromoteConfig, run: str) -> State[Any]:
    """End a run that nobody decided in time as "Not promoted", and write that down."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(run)).state
        if state is None or not _overdue(state):
            return Completed(name="Nothing to do", message=f"Run {run} is not waiting any more")
        record = comparison.note_expiry(config, _request(run))
        ended = _as_state(record)
        if record.event == "expiry":
            client.set_flow_run_state(UUID(run), ended, force=True)
    return Completed(message=record.in_words())


def _overdue(state: State[Any]) -> bool:
    """Return whether a run waits for a person and may not any more, or ended for this."""
    if state.type == StateType.FAILED:
        return "never resumed" in (state.message or "")
    limit = state.state_details.pause_timeout
    # a second form of the same run has a deadline of its own
    return state.is_paused() and (limit is None or limit <= now("UTC") + timedelta(seconds=1))


def _as_state(record: Record) -> State[Any]:
    """Return the final state of a run (Prefect uses a state that a flow returns)."""
    name, message = NAMES[record.event], f"{record.in_words()}: {record.reason}"
    if record.event in ("refusal", "expiry"):
        return Failed(name=name, message=message)
    return Completed(name=name, message=message)


def _request(run: Any) -> str:
    return f"run {run}"
