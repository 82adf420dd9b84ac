"""What a command sets before anything is imported that reads it once: environment, output, log."""

import os
import sys
from typing import TextIO

from flows.infrastructure.log import show_log

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
DEFAULTS = {
    # a server for one command need not call home
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # a machine at work takes longer to start one than the 20 s that Prefect waits
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # a bar for each file that MLflow copies hides what a run has to say
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow waits 2, 4, 8 … s between tries: a minute, instead of four
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
}


def prepare_surroundings() -> None:
    """Set defaults of the environment, make output printable anywhere, and log to stderr."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    spare_loopback()
    for stream in (sys.stdout, sys.stderr):
        _print_anything(stream)
    show_log()


def spare_loopback() -> None:
    """Keep what goes to this machine's own servers from a proxy, which cannot reach them."""
    given = {name.lower(): value for name, value in sorted(os.environ.items()) if value}
    if not any(name in given for name in PROXIES):
        return
    named = [host for host in given.get("no_proxy", "").split(",") if host.strip()]
    spared = ",".join([*named, *(host for host in LOOPBACK if host not in named)])
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = spared


def _print_anything(stream: TextIO) -> None:
    """Let a stream of a poor encoding (ASCII, Latin-1) show ``?`` for what it lacks."""
    if hasattr(stream, "reconfigure") and not stream.encoding.lower().startswith("utf"):
        stream.reconfigure(errors="replace")
