"""A script without a main guard is refused before it begins processes that would run it anew."""

import subprocess
import sys

import pytest

# within the block of an artifact, as the library begins processes: the child would wait for it
WORK = """
import sys
from pedfrac.packs.decoding import Decoders
from pedfrac.storage.store import ArtifactStore

def make(folder):
    with Decoders(2) as decoders:
        decoders.start()
    (folder / "made").write_text("")

def main():
    print(ArtifactStore("store").produce("pack", make).key)
"""
GUARDED = "if __name__ == '__main__':\n    main()\n"


def run(folder, *command, text=""):
    (folder / "script.py").write_text(WORK + text)
    return subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize(
    ("command", "text"),
    [(("script.py",), "main()\n"), (("-m", "script"), "for _ in range(1):\n    main()\n")],
)
def test_a_script_without_a_guard_is_told_where(tmp_path, command, text):
    done = run(tmp_path, *command, text=text)
    line = done.stderr.splitlines()[-1]
    assert line.startswith("pedfrac.errors.PedfracError: ")
    at = len(WORK.splitlines()) + len(text.splitlines())
    assert f"script.py, line {at}: stands outside of a main guard" in line
    assert done.stderr.count("Traceback") == 1  # no process was begun


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("script.py",), GUARDED),
        (("-m", "script"), GUARDED),
        (("script.py",), "if __name__ != '__main__':\n    sys.exit()\nmain()\n"),
        (("-c", "import script; script.main()"), ""),
    ],
)
def test_others_work(tmp_path, command, text):
    done = run(tmp_path, *command, text=text)
    assert done.stdout.startswith("pack/"), done.stderr
