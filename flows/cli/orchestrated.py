"""Flows run by a command, on the server that is configured or on Prefect's own temporary one."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from importlib import import_module
from pathlib import Path
from typing import Any

from pedfrac.errors import PedfracError


def run_flow(entrypoint: str, *given: Any, **more: Any) -> Any:
    """Run the flow of an entrypoint, ``module:function``, and return what it returns.

    Where no server is configured, Prefect starts one that ends with this process. Raises
    PedfracError where a server cannot be reached.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if url := PREFECT_API_URL.value():
        _refuse_absent(url)
        changed: dict[Any, Any] = {}
    else:
        changed = _temporary_server()
    module, _, name = entrypoint.partition(":")
    flow = getattr(import_module(module), name)
    with temporary_settings(changed), ThreadPoolExecutor(1) as thread:
        # in the main thread Prefect would take SIGTERM and wait for all trainings under way
        return thread.submit(copy_context().run, flow, *given, **more).result()


def _refuse_absent(url: str) -> None:
    """Raise PedfracError where no server answers."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        failure = client.api_healthcheck()
    if failure is not None:
        raise PedfracError(
            f"PREFECT_API_URL: no Prefect server answers at {url} ({failure}); start it, or "
            "correct or unset the variable"
        )


def _temporary_server() -> dict[Any, Any]:
    """Have Prefect start its temporary server; return the settings that go with it."""
    import httpx
    from filelock import FileLock
    from prefect.client.orchestration import get_client
    from prefect.settings import (
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_HOME,
        PREFECT_UI_URL,
    )

    home = Path(PREFECT_HOME.value())
    home.mkdir(parents=True, exist_ok=True)
    # one at a time, since two that make the database at once would meet in its tables
    with FileLock(home / "pedfrac-start.lock"):
        try:
            with get_client(sync_client=True) as client:
                client.hello()
        except (RuntimeError, httpx.HTTPError) as error:
            raise PedfracError(
                f"Prefect's temporary server does not start ({error}); it must be able to write "
                f"to PREFECT_HOME ({home})"
            ) from error
    return {
        PREFECT_UI_URL: "",  # it has no pages to lead anybody to
        # nobody listens to heartbeats there, and to end them takes each run a second
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
