"""The node's cache: fetched once, verified, bounded, and unharmed by processes that die."""

import hashlib
import subprocess
import sys
import time

import pytest

from pedfrac.errors import PedfracError
from pedfrac.storage.manifest import FileEntry
from pedfrac.storage.node_cache import Cache, cache_of_environment

FILES = {"a.txt": b"first", "b/c.txt": b"second"}


def entries(contents=FILES):
    return {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for name, content in contents.items()
    }


class Source:
    """Where the files come from; it remembers what was asked for."""

    def __init__(self, **wrong):
        self.asked, self.wrong = [], wrong

    def __call__(self, files, done):
        for name, path in files.items():
            self.asked.append(name)
            path.write_bytes(self.wrong.get(name.split(".")[0], FILES[name]))
            done(name)


# A process of its own: it fetches an entry of some bytes, says so, and waits to be ended.
FETCH = """
import hashlib, sys, time
from pathlib import Path
from pedfrac.storage.manifest import FileEntry
from pedfrac.storage.node_cache import Cache
root, bound, name, size, stay = sys.argv[1:]
content = b"x" * int(size)
entries = {"f": FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))}
def download(files, done):
    files["f"].write_bytes(content)
    done("f")
assert Cache(Path(root), float(bound)).fetch(name, entries, download) == []
print("done", flush=True)
time.sleep(float(stay))
"""


def fetch_elsewhere(cache, name, size, stay=0.0):
    words = [cache.root, cache.bound, name, size, stay]
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, *map(str, words)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "done\n"
    if not stay:
        assert process.wait(30) == 0
    return process


def test_a_second_fetch_asks_for_nothing(tmp_path):
    cache, source = Cache(tmp_path), Source()
    for _ in range(2):
        assert cache.fetch("kind/key", entries(), source) == []
    assert sorted(source.asked) == sorted(FILES)
    assert {name: (cache.path("kind/key") / name).read_bytes() for name in FILES} == FILES


@pytest.mark.parametrize("harm", ("changed", "longer", "gone"))
def test_a_broken_file_is_fetched_anew_and_the_others_are_not(tmp_path, harm):
    cache = Cache(tmp_path)
    cache.fetch("e", entries(), Source())
    path = cache.path("e") / "a.txt"
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(b"FIRST" if harm == "changed" else b"first and more")
    again = Source()
    assert cache.fetch("e", entries(), again) == []
    assert again.asked == ["a.txt"] and path.read_bytes() == b"first"


def test_what_never_verifies_is_named_and_not_kept(tmp_path):
    cache, source = Cache(tmp_path), Source(a=b"FIRST")
    assert cache.fetch("e", entries(), source) == ["a.txt"]
    assert source.asked.count("a.txt") == 2 and source.asked.count("b/c.txt") == 1
    assert not (cache.path("e") / "a.txt").exists()
    assert cache.fetch("e", entries(), Source()) == []


def test_a_lost_stamp_costs_a_hash_and_no_fetch(tmp_path):
    cache = Cache(tmp_path)
    cache.fetch("e", entries(), Source())
    for stamp in (tmp_path / "stamps").iterdir():
        stamp.write_text("{cut off")
    again = Source()
    assert cache.fetch("e", entries(), again) == [] and again.asked == []


def test_the_least_recently_used_goes_first_and_never_one_in_use(tmp_path):
    cache = Cache(tmp_path, bound=1000)
    living = fetch_elsewhere(cache, "in-use", 300, stay=60)
    try:
        for name in ("old", "new"):
            fetch_elsewhere(cache, name, 300)
            time.sleep(0.05)
        fetch_elsewhere(cache, "old", 300)  # used again: "new" is the older one now
        fetch_elsewhere(cache, "more", 300)
        held = {path.name for path in (tmp_path / "entries").iterdir()}
        assert held == {"in-use", "old", "more"}
    finally:
        living.kill()
        living.wait()
    fetch_elsewhere(cache, "large", 900)
    assert [path.name for path in (tmp_path / "entries").iterdir()] == ["large"]


def test_more_in_use_than_fits_is_said_and_done(tmp_path, caplog):
    cache = Cache(tmp_path, bound=4)
    assert cache.fetch("e", entries(), Source()) == []
    assert "PEDFRAC_CACHE_GB" in caplog.text


def test_the_environment_names_folder_and_bound(tmp_path, monkeypatch):
    monkeypatch.setenv("PEDFRAC_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("PEDFRAC_CACHE_GB", "0.5")
    cache = cache_of_environment()
    assert cache.root == tmp_path / "here" and cache.bound == 5e8
    monkeypatch.setenv("PEDFRAC_CACHE_GB", "much")
    with pytest.raises(PedfracError, match="PEDFRAC_CACHE_GB: must be a number, found 'much'"):
        cache_of_environment()


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PedfracError, match="PEDFRAC_CACHE"):
        Cache(tmp_path / "file").fetch("e", entries(), Source())
