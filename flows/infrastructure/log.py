"""What a person reads on stderr while a command runs. Not here: what the server keeps."""

import logging
import multiprocessing
import sys

from pedfrac.errors import PedfracError


def show_log() -> None:
    """Log to stderr what a person wants to follow; the server keeps all of it."""
    handler = StandardError()
    handler.addFilter(is_news)
    logging.basicConfig(
        handlers=[handler],
        level=logging.WARNING,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        force=True,  # where Prefect was imported before, its own handler is there
    )
    logging.getLogger("pedfrac").setLevel(logging.INFO)
    for name in ("flow_engine", "task_engine", "flow_runs", "task_runs"):
        logging.getLogger(f"prefect.{name}").addFilter(_without_traceback)


class StandardError(logging.Handler):
    """Prints to what stderr is at the time: while a bar is shown, to the lines above it.

    Prefect replaces a handler of the root whose name begins with an underscore.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        print(self.format(record), file=sys.stderr, flush=True)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a line adds information to the lines before it and to the final error."""
    message = record.getMessage()
    ended = message.startswith(("Finished in state", "Stopping temporary server"))
    if multiprocessing.parent_process() and message.startswith("View at"):
        return False  # the parent's page leads there, and a temporary server is gone too soon
    return not (ended or (message.startswith("Encountered") and "PedfracError" in message))


def _without_traceback(record: logging.LogRecord) -> bool:
    """Keep the one line of a user's error; a bug keeps its traceback."""
    if record.exc_info and isinstance(record.exc_info[1], PedfracError):
        record.exc_info = None
        record.exc_text = None
    return True


def is_shown() -> bool:
    """Whether this process logs to stderr what a person wants to follow."""
    return any(isinstance(handler, StandardError) for handler in logging.getLogger().handlers)
