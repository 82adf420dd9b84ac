"""How processes for child flows begin: on Linux as copies of one that has imported what they need.

Elsewhere each begins anew, since a copy is not safe there (macOS) or not to be had (Windows).
"""

import multiprocessing
import sys
from multiprocessing.context import BaseContext

ON_LINUX = sys.platform == "linux"


def beginnings() -> BaseContext:
    """Return the context whose ``Process`` is to be started for a child flow."""
    context = multiprocessing.get_context("forkserver" if ON_LINUX else "spawn")
    if ON_LINUX:
        context.set_forkserver_preload(["flows.infrastructure.forked"])
    return context


def import_ahead() -> None:
    """Start the process of which children will be copies, so that it imports while others work."""
    if ON_LINUX:
        from multiprocessing.forkserver import ensure_running

        beginnings()
        ensure_running()
