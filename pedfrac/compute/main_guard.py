"""Scripts that would run anew in each process that they begin, and hang: found before they do.

A process begun by ``spawn`` imports the script of its parent. What stands there outside of
``if __name__ == "__main__":`` runs again in it, asks for the artifact that its parent is making,
and waits for the parent's lock, while the parent waits for the process.
"""

import ast
import sys
import threading
from pathlib import Path
from types import FrameType, ModuleType

from pedfrac.errors import PedfracError

SIGNS = {"__name__", "parent_process", "current_process"}  # what a guard asks


def require_main_guard() -> None:
    """Raise PedfracError where the main script is at work outside of a main guard.

    To be called before processes are begun. A prompt, a notebook and ``python -m package`` are not
    imported again.
    """
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if file is None or (spec is not None and spec.name.rpartition(".")[2] == "__main__"):
        return
    line = _line_at_work(main)
    if line is not None and not _is_guarded(Path(file), line):
        raise PedfracError(
            f"{file}, line {line}: stands outside of a main guard, and other processes that are "
            "needed here would run it again; put what the script does into a function, called "
            "below 'if __name__ == \"__main__\":'"
        )


def _line_at_work(main: ModuleType) -> int | None:
    """Return the line of the script itself, outside of its functions, that is being run."""
    frame: FrameType | None = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals is vars(main):
            return frame.f_lineno
        frame = frame.f_back
    return None


def _is_guarded(file: Path, line: int) -> bool:
    """Return whether a condition about the process stands around or before a line."""
    try:
        statements = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return True  # no script that can be imported again
    conditions = [one.test for one in statements if isinstance(one, ast.If) and one.lineno <= line]
    return any(_names(condition) & SIGNS for condition in conditions)


def _names(tree: ast.AST) -> set[str]:
    nodes = list(ast.walk(tree))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
