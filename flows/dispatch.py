"""How the parent has its children run: here, in processes side by side, or on a pool of workers."""

import os
import time
from collections.abc import Callable
from typing import Any

from prefect import Flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow_in_subprocess

from flows.deployed import Work, run_deployed
from pedfrac.config import RetrainConfig
from pedfrac.errors import PedfracError

# Seconds in which a server has written down that a task runs. Where it does so in SQLite while it
# is told of a child, it refuses the child, and Prefect's client waits two seconds and more.
RECORDED = 0.1


@task(name="dispatch", task_run_name="dispatch {name}", cache_policy=NO_CACHE)
def dispatch(name: str, child: Flow[..., str], work: Work, given: dict[str, Any]) -> str:
    """Have a child flow train a model, or do other work for a GPU; return the key that it made.

    ``given`` are the child's parameters. What is there already is not made again.
    """
    config = work.config
    if config.runtime.dispatch == "deployments":
        if not work.done:
            run_deployed(name, child, given, work)
        return work.key
    if config.runtime.parallel == 1:
        time.sleep(RECORDED)
        return child(**given)
    _run_in_process(name, child, given, config)
    # The artifact is there now, so that the child's own steps only look up its key. Where the
    # child ended in an error of its own, the same steps raise it here, with its reason.
    look_up: Callable[..., str] = child.fn
    return look_up(**given)


def _run_in_process(
    name: str, child: Flow[..., str], given: dict[str, Any], config: RetrainConfig
) -> None:
    threads = str(max(1, (os.cpu_count() or 1) // config.runtime.parallel))
    environment: dict[str, str | None] = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with get_client(sync_client=True) as client:
        # else each child would start a server of its own where this one is temporary
        environment["PREFECT_API_URL"] = str(client.api_url)
    process = run_flow_in_subprocess(child, parameters=given, env=environment)
    process.join()
    if process.exitcode != 0:
        raise PedfracError(f"{name}: its process ended with exit code {process.exitcode}")
