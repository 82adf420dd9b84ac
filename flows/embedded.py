"""Flows run by a person's command, without a Prefect server of one's own.

Not here: deployments, whose runs a worker starts.
"""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from threading import Thread
from typing import Any


def run_flow(
    entrypoint: str, *given: Any, meanwhile: Callable[[], None] | None = None, **more: Any
) -> Any:
    """Run the flow of an entrypoint, ``module:function``, and return what it returns.

    Where no server is configured, Prefect's temporary one starts while the flow is imported and
    ``meanwhile`` does what the flow would else do later.
    """
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    if PREFECT_API_URL.value():
        return _imported(entrypoint)(*given, **more)
    server = _starting_server()
    # nobody listens to heartbeats there, and to end them takes each run a second
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        flow = _imported(entrypoint)
        if meanwhile:
            meanwhile()
        server.join()
        return flow(*given, **more)


def _imported(entrypoint: str) -> Callable[..., Any]:
    module, _, name = entrypoint.partition(":")
    flow: Callable[..., Any] = getattr(import_module(module), name)
    return flow


def _starting_server() -> Thread:
    """Return the thread in which the server starts that Prefect's client will ask for."""
    # imported before the thread begins, since two may trip over each other's imports
    from prefect.server.api.server import SubprocessASGIServer

    def start() -> None:
        with suppress(Exception):  # the client then starts it again, and tells
            SubprocessASGIServer().start()

    thread = Thread(target=start)
    thread.start()
    return thread
