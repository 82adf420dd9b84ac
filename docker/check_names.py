"""Fails where another distribution owns one of our top-level names, or where ours is editable.

``flows`` and ``tasks`` are generic names: a dependency that ships a package of that name overwrites
ours, or is overwritten, without a word from pip. Needs nothing but the standard library.
"""

import sys
from collections import defaultdict
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path


def owners() -> dict[str, set[str]]:
    """Return, for each top-level folder and module, the distributions that installed it."""
    found = defaultdict(set)
    for distribution in distributions():
        name = distribution.name  # parsed anew at each look
        for line in (distribution.read_text("RECORD") or "").splitlines():
            top, _, below = line.partition(",")[0].partition("/")
            if below or top.endswith((".py", ".so")):
                found[top.partition(".")[0]].add(name)
    return found


def problems(names: list[str]) -> list[str]:
    """Return one line for each name that is not ours alone; the first is our distribution."""
    ours, installed = names[0], owners()
    found = []
    for name in names:
        if strangers := installed[name] - {ours}:
            found.append(f"{name}: belongs to {', '.join(sorted(strangers))} too")
        spec = find_spec(name)
        home = Path(str(Distribution.from_name(ours).locate_file(name))).resolve()
        if spec is None or spec.origin is None:
            found.append(f"{name}: cannot be imported as a package")
        elif Path(spec.origin).resolve().parent != home:
            found.append(f"{name}: is imported from {spec.origin}, not from {home}")
    return found


if __name__ == "__main__":
    if found := problems(sys.argv[1:]):
        sys.exit("\n".join(found))
