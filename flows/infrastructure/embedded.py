"""Flows run by a person's command, without a Prefect server of one's own.

Not here: deployments, whose runs a worker starts.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from flows.infrastructure.server import TemporaryServer, temporary_server


def run_flow(
    entrypoint: str, *given: Any, meanwhile: Callable[[], None] | None = None, **more: Any
) -> Any:
    """Run the flow of an entrypoint, ``module:function``, and return what it returns.

    Where no server is configured, a temporary one starts while the flow is imported and
    ``meanwhile`` does what the flow would else do later.
    """
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return _imported(entrypoint)(*given, **more)
    with temporary_server() as server, _ending_when_interrupted(server):
        flow = _imported(entrypoint)
        if meanwhile:
            meanwhile()
        server.wait()
        return flow(*given, **more)


def _imported(entrypoint: str) -> Callable[..., Any]:
    module, _, name = entrypoint.partition(":")
    flow: Callable[..., Any] = getattr(import_module(module), name)
    return flow


@contextmanager
def _ending_when_interrupted(server: TemporaryServer) -> Iterator[None]:
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
