"""How far a step is, on the terminal. Not here: what the Prefect UI shows (progress)."""

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Show = Callable[[int, int, str], None]


@contextmanager
def progress_bar(description: str) -> Iterator[Show]:
    """Yield ``show(done, total, note)``, which moves a bar on stderr where that is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # several processes drawing bars in one terminal would paint over each other
    alone = multiprocessing.parent_process() is None
    shown = alone and sys.stderr.isatty()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task(description, note="")

        def show(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield show
