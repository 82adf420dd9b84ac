"""How the parent starts its children on this machine: one by one, or in processes side by side."""

import os
from collections.abc import Callable
from typing import Any

from prefect import Flow, task
from prefect.cache_policies import NO_CACHE
from prefect.flow_engine import run_flow_in_subprocess

from pedfrac.errors import PedfracError


@task(name="dispatch", task_run_name="dispatch {name}", cache_policy=NO_CACHE)
def dispatch(name: str, child: Flow[..., str], parameters: dict[str, Any], parallel: int) -> str:
    """Run a child flow to its end and return the key that it made.

    Side by side, each child has a process of its own with its share of the cores.
    """
    if parallel == 1:
        return child(**parameters)
    _run_in_process(name, child, parameters, parallel)
    # The artifact is there now, so that the child's own steps only look up its key. Where the
    # child ended in an error of its own, the same steps raise it here, with its reason.
    look_up: Callable[..., str] = child.fn
    return look_up(**parameters)


def _run_in_process(
    name: str, child: Flow[..., str], parameters: dict[str, Any], parallel: int
) -> None:
    threads = str(max(1, (os.cpu_count() or 1) // parallel))
    process = run_flow_in_subprocess(
        child, parameters=parameters, env={"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    )
    process.join()
    if process.exitcode != 0:
        raise PedfracError(f"{name}: its process ended with exit code {process.exitcode}")
