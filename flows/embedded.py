"""Flows run by a person's command, without a Prefect server of one's own.

Not here: deployments, whose runs a worker starts.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
    # imported before its thread begins, since two may trip over each other's imports
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    starting = _starting(server)
    # nobody listens to heartbeats there, and to end them takes each run a second
    with (
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        _ending_when_interrupted(server),
    ):
        flow = _imported(entrypoint)
        if meanwhile:
            meanwhile()
        starting.join()
        return flow(*given, **more)


def _imported(entrypoint: str) -> Callable[..., Any]:
    module, _, name = entrypoint.partition(":")
    flow: Callable[..., Any] = getattr(import_module(module), name)
    return flow


def _starting(server: Any) -> Thread:
    """Return the thread in which the server starts that Prefect's client will ask for."""

    def start() -> None:
        with suppress(Exception):  # the client then starts it again, and tells
            server.start()

    thread = Thread(target=start)
    thread.start()
    return thread


@contextmanager
def _ending_when_interrupted(server: Any) -> Iterator[None]:
    """End at Ctrl-C, which ends the server, too: Prefect would wait for trainings and for it.

    Processes of children end with this one.
    """

    def end(*_: Any) -> None:
        print(
            "pedfrac: interrupted; what is done is kept, and the same command goes on from there",
            file=sys.stderr,
            flush=True,
        )
        server.stop()
        os._exit(130)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
