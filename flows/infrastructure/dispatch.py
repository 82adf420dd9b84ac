"""How the parent has its children run: here, in processes side by side, or on a pool of workers."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from prefect import Flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import SettingsContext, get_settings_context, serialize_context
from prefect.engine import handle_engine_signals
from prefect.flow_engine import run_flow
from prefect.settings import Settings, get_current_settings
from prefect.utilities.callables import cloudpickle_wrapped_call

from flows.infrastructure import log
from flows.infrastructure.deployed import Work, run_deployed
from flows.infrastructure.forking import beginnings
from pedfrac.errors import PedfracError
from pedfrac.training.distributed import end_with_caller

# Seconds in which a server has written down that a task runs. Where it does so in SQLite while it
# is told of a child, it refuses the child, and Prefect's client waits two seconds and more.
RECORDED = 0.1


@task(name="dispatch", task_run_name="dispatch {name}", cache_policy=NO_CACHE)
def dispatch(name: str, child: Flow[..., str], work: Work, given: dict[str, Any]) -> str:
    """Have a child flow train a model, or do other work for a GPU; return the key that it made.

    ``given`` are the child's parameters. What is there already is not made again.
    """
    runtime = work.config.runtime
    if runtime.dispatch == "deployments":
        if not work.done:
            run_deployed(name, child, given, work)
        return work.key
    time.sleep(RECORDED)
    if runtime.parallel == 1:
        return child(**given)
    _run_in_process(name, child, given, runtime.parallel)
    if work.done:
        return work.key
    # where the child ended in an error of its own, the same steps raise it here, with its reason
    retold: Callable[..., str] = child.fn
    return retold(**given)


def _run_in_process(name: str, child: Flow[..., str], given: dict[str, Any], parallel: int) -> None:
    """Run a child in one of some processes at a time, below the run under way.

    It is what Prefect's ``run_flow_in_subprocess`` does, whose processes all begin anew and take
    seconds of a core each to import what the others have.
    """
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    with get_client(sync_client=True) as client:
        # else each child would start a server of its own where this one is temporary
        own = {
            "PREFECT_API_URL": str(client.api_url),
            "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
        }
    environment = settings | dict(os.environ) | own
    begun = cloudpickle_wrapped_call(
        _be_child, child, given, serialize_context(), environment, parallel, log.is_shown()
    )
    process: Any = cast(Any, beginnings()).Process(target=begun, name=name)
    process.start()
    process.join()
    if process.exitcode != 0:
        raise PedfracError(f"{name}: its process ended with exit code {process.exitcode}")


def _be_child(
    child: Flow[..., str],
    given: dict[str, Any],
    context: dict[str, Any],
    environment: dict[str, str],
    parallel: int,
    logged: bool,
) -> None:
    """Run a flow, with this process's share of the cores: the body of each process."""
    end_with_caller()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # sent to a whole group: the caller decides
    os.environ.update(environment)
    torch.set_num_threads(max(1, torch.get_num_threads() // parallel))
    if logged:
        log.show_log()
    settings = SettingsContext(profile=get_settings_context().profile, settings=Settings())
    with settings, handle_engine_signals():
        run_flow(child, parameters=given, context=context)
