"""How far a step is: a bar in the terminal and, in a flow run, a progress artifact in the UI."""

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect.artifacts import create_progress_artifact
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.context import FlowRunContext, SyncClientContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int, int], None]


@contextmanager
def progress(key: str, description: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield ``show(done, total, note)``, which moves the bar and the artifact of this key.

    The artifact moves by whole percents only, since each update is a request to the server.
    """
    artifact: Any = None
    if FlowRunContext.get():
        artifact = create_progress_artifact(0.0, key=key, description=description)
    shown = 0.0
    with _bar() as bar:
        task = bar.add_task(description, note="")

        def show(done: int, total: int, note: str = "") -> None:
            nonlocal shown
            bar.update(task, completed=done, total=total, note=note)
            percent = 100 * done / total
            if artifact and (percent - shown >= 1 or done == total):
                shown = percent
                update = ArtifactUpdate(data=percent, description=f"{description} {note}")
                # the run's own client, since Prefect's function makes one, which takes longer
                with SyncClientContext.get_or_create() as here:
                    here.client.update_artifact(artifact, update)

        yield show


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # several processes drawing bars in one terminal would paint over each other
    alone = multiprocessing.parent_process() is None
    console = Console(stderr=True)
    shown = alone and sys.stderr.isatty()
    return Progress(*columns, console=console, transient=True, disable=not shown)
