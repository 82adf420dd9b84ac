"""How far a task is: a bar in the terminal and, in a flow run, a progress artifact in the UI."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.artifacts import create_progress_artifact
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.context import FlowRunContext, SyncClientContext

from tasks.bar import Show, progress_bar


@contextmanager
def progress(key: str, description: str) -> Iterator[Show]:
    """Yield ``show(done, total, note)``, which moves the bar and the artifact of this key.

    The artifact moves by whole percents only, since each update is a request to the server.
    """
    artifact: Any = None
    if FlowRunContext.get():
        artifact = create_progress_artifact(0.0, key=key, description=description)
    shown = 0.0
    with progress_bar(description) as move:

        def show(done: int, total: int, note: str = "") -> None:
            nonlocal shown
            move(done, total, note)
            percent = 100 * done / total
            if artifact and (percent - shown >= 1 or done == total):
                shown = percent
                update = ArtifactUpdate(data=percent, description=f"{description} {note}")
                # the run's own client, since Prefect's function makes one, which takes longer
                with SyncClientContext.get_or_create() as here:
                    here.client.update_artifact(artifact, update)

        yield show
