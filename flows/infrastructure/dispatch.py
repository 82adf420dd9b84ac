"""How the parent has its children run: here, in processes side by side, or on a pool of workers."""

import multiprocessing
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from typing import Any

import torch
from prefect import Flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import with_context
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.infrastructure import log
from flows.infrastructure.deployed import Work, run_deployed
from pedfrac.compute.main_guard import require_main_guard
from pedfrac.errors import PedfracError
from pedfrac.training.distributed import end_with_caller

# Seconds in which a server has written down that a task runs. Where it does so in SQLite while it
# is told of a child, it refuses the child, and Prefect's client waits two seconds and more.
RECORDED = 0.1


@task(name="dispatch", task_run_name="dispatch {name}", cache_policy=NO_CACHE)
def dispatch(name: str, child: Flow[..., str], work: Work, given: dict[str, Any]) -> str:
    """Run a child flow that trains a model or does other GPU work; return the key it made.

    ``given``: the child's parameters. An existing artifact is not made again.
    """
    runtime = work.config.runtime
    if runtime.dispatch == "deployments":
        if not work.done:
            run_deployed(name, child, given, work)
        return work.key
    time.sleep(RECORDED)
    if runtime.parallel == 1:
        return child(**given)
    return _run_in_process(name, child, given, runtime.parallel)


def _run_in_process(name: str, child: Flow[..., str], given: dict[str, Any], parallel: int) -> str:
    """Run a child in a process of its own, below the run under way; its error is raised here.

    A pool of one for each, so that a child that is killed breaks no other's.
    """
    require_main_guard()
    context = multiprocessing.get_context("spawn")
    place = f"{child.fn.__module__}:{child.fn.__name__}"
    with get_client(sync_client=True) as client:
        here = {PREFECT_API_URL: str(client.api_url)}
    with temporary_settings(here):  # else a child would start a temporary server of its own
        begun = with_context(_be_child)
    with ProcessPoolExecutor(1, context, _begin, (parallel, log.is_shown())) as pool:
        try:
            key: str = pool.submit(begun, place, given).result()
        except BrokenProcessPool:
            raise PedfracError(
                f"{name}: its process was killed, perhaps for memory; what it has finished is kept"
            ) from None
    return key


def _begin(parallel: int, logged: bool) -> None:
    """Make a process fit for a child: its share of the cores, and an end with its parent's."""
    end_with_caller()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # sent to a whole group: the caller decides
    torch.set_num_threads(max(1, torch.get_num_threads() // parallel))
    if logged:
        log.show_log()


def _be_child(place: str, given: dict[str, Any]) -> str:
    module, _, name = place.partition(":")
    key: str = getattr(import_module(module), name)(**given)
    return key
