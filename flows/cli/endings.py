"""How a command ends: in one line where something is wrong, and with all that it began."""

import errno
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import FrameType

from pedfrac.errors import PedfracError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 3.0  # seconds that what a command began is given to end
ADVICE = {
    errno.EACCES: "give this user the right to write there, or name another place",
    errno.EPERM: "give this user the right to write there, or name another place",
    errno.ENOTDIR: "a file is where a folder must be",
    errno.EEXIST: "a file is where a folder must be",
    errno.EROFS: "name a place that can be written",
    errno.ENOSPC: "make room there, or name another place, and start again",
    errno.EDQUOT: "make room there, or name another place, and start again",
}


@contextmanager
def ending_well() -> Iterator[None]:
    """Turn errors into one line and exit code 1, and a signal into the end of all processes.

    What nobody foresaw leaves its traceback in a file, which the line names.
    """
    _follow_signals()
    try:
        yield
    except PedfracError as error:
        _end(str(error))
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except OSError as error:
        _end(in_one_line(error) or _kept_traceback(error))
    except Exception as error:
        _end(_kept_traceback(error))


def in_one_line(error: OSError) -> str | None:
    """Return what is wrong with a place and what to do, where a user can mend it."""
    if error.errno not in ADVICE:
        return None
    return f"{error.filename or 'output'}: {error.strerror}; {ADVICE[error.errno]}"


def _end(line: str) -> None:
    print(f"pedfrac: {line}", file=sys.stderr)
    sys.exit(1)


def _kept_traceback(error: Exception) -> str:
    """Write the traceback to a file; return the line that names it."""
    told = " ".join(str(error).split())
    name = type(error).__name__ + (f": {told}" if told else "")
    name = name if len(name) <= 300 else f"{name[:300]} …"
    file = Path(tempfile.gettempdir()) / f"pedfrac-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    try:
        file.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        traceback.print_exception(error)
        return f"unexpected error ({name}); its traceback stands above"
    return f"unexpected error ({name}); its traceback is in {file}"


def _drop_output() -> None:
    """Let what is still to be flushed to a closed pipe go nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _follow_signals() -> None:
    """End at Ctrl-C, SIGTERM and SIGHUP with every process below this one."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _end_all)


def _end_all(number: int, frame: FrameType | None) -> None:
    """Say so, end what this process began, and then itself by the same signal.

    Threads at work are not waited for: what they have finished is kept, and the same command goes
    on from there.
    """
    import psutil

    logging.disable()  # of threads that miss what is ended here
    if number == signal.SIGINT:
        said = "interrupted; what is done is kept, and the same command goes on from there"
        print(f"pedfrac: {said}", file=sys.stderr, flush=True)
    below = psutil.Process().children(recursive=True)
    for process in below:
        with suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(below, GRACE)[1]:
        with suppress(psutil.Error):
            process.kill()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
