"""Artifacts on a real S3 server: as in a folder, and for several nodes at once."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from faults import proxy
from servers import environment

from pedfrac.errors import PedfracError
from pedfrac.storage.store import ArtifactStore


def maker(contents):
    def make(folder):
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    return make


@pytest.fixture
def node(s3_root, tmp_path, monkeypatch):
    """A maker of stores, each with the cache of a node of its own."""

    def store(name="one"):
        monkeypatch.setenv("PEDFRAC_CACHE", str(tmp_path / name))
        return ArtifactStore(s3_root)

    return store


@pytest.fixture
def watched(s3_server, monkeypatch):
    """A proxy before the server that this process talks through."""
    with proxy(s3_server.endpoint) as before:
        for name, value in environment(before.endpoint).items():
            monkeypatch.setenv(name, value)
        yield before


def names(s3_server, bucket):
    found = s3_server.client.list_objects_v2(Bucket=bucket).get("Contents", [])
    return [one["Key"] for one in found]


def test_one_node_makes_and_another_takes(node, watched):
    contents = {"a.txt": b"a", "b/c.bin": b"c" * 100_000}
    made = node().produce("kind", maker(contents), config={"n": 1})
    assert watched.count("GET", "/files-") == watched.count("HEAD", "/files-") == 0
    assert made.file("a.txt").read_bytes() == b"a"
    other = node("two")
    assert other.exists(made.key) and other.get(made.key).digest == made.digest
    assert other.get(made.key).file("b/c.bin").read_bytes() == contents["b/c.bin"]
    assert watched.count("GET", "/files-") == 2
    again = other.produce("kind", lambda folder: pytest.fail("made again"), config={"n": 1})
    assert again.path == other.get(made.key).path
    assert watched.count("GET", "/files-") == 2


def test_a_peek_fetches_the_manifest_alone(node, watched):
    made = node().produce("kind", maker({"a": b"a"}))
    other = node("two")
    peeked, (listed,) = other.peek(made.key), other.of_kind("kind")
    assert peeked.digest == listed.digest == made.digest
    assert watched.count("GET", "/files-") == 0
    assert (peeked.path / "a").read_bytes() == b"a"
    assert watched.count("GET", "/files-") == 1
    with pytest.raises(PedfracError, match=r"some/prefix/kind/none: no artifact here"):
        other.get("kind/none")
    assert other.find("kind/none") is None and not other.exists("kind/none")


def test_of_sixteen_writers_one_wins_and_all_get_its_files(node, s3_server, bucket):
    stores = [node(f"node-{number}") for number in range(16)]
    barrier, results = threading.Barrier(16), {}

    def race(number):
        def make(folder):
            barrier.wait()  # none has finished when the last begins
            (folder / "who").write_text(str(number))

        results[number] = stores[number].produce("kind", make)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.manifest.place for result in results.values()}) == 1
    assert len({result.file("who").read_text() for result in results.values()}) == 1
    assert len({result.path for result in results.values()}) == 16
    left = [name for name in names(s3_server, bucket) if "/kind/" in name]
    assert len(left) == 2  # the winner's file and manifest


def test_a_file_that_is_broken_in_the_store_is_noticed_and_made_again(node, s3_server, bucket):
    made = node().produce("kind", maker({"a": b"right", "b": b"b"}))
    (broken,) = [name for name in names(s3_server, bucket) if name.endswith("/a")]
    s3_server.client.put_object(Bucket=bucket, Key=broken, Body=b"wrong")
    other = node("two")
    with pytest.raises(PedfracError, match=r"kind/.*no verified artifact here, \['a'\]"):
        other.get(made.key)
    assert other.produce("kind", maker({"a": b"right", "b": b"b"})).digest == made.digest
    assert node("three").get(made.key).file("a").read_bytes() == b"right"
    s3_server.client.delete_object(Bucket=bucket, Key=broken)
    assert node("one").get(made.key).file("a").read_bytes() == b"right"


PRODUCE = """
import sys
from pedfrac.storage.store import ArtifactStore
def make(folder):
    for number in range(8):
        (folder / f"{number}").write_bytes(bytes([number]) * 3_000_000)
print(ArtifactStore(sys.argv[1]).produce("kind", make).key)
"""
GET = """
import sys
from pedfrac.storage.store import ArtifactStore
artifact = ArtifactStore(sys.argv[1]).get(sys.argv[2])
assert artifact.file("7").read_bytes() == bytes([7]) * 3_000_000
"""


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True
    )


def kill_when(process, condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_uploads_and_downloads_are_taken_up_again(node, watched, s3_root, tmp_path):
    store = node()
    key = store.key("kind")
    watched.slow = 0.5
    kill_when(start(PRODUCE, s3_root), lambda: watched.count("PUT", "/files-") >= 4)
    assert not store.exists(key) and store.find(key) is None
    watched.slow = 0.0
    assert start(PRODUCE, s3_root).communicate(timeout=60)[0].strip() == key

    node("two")
    watched.slow = 0.5
    arrived = tmp_path / "two" / "entries"
    kill_when(start(GET, s3_root, key), lambda: any(p.is_file() for p in arrived.rglob("?")))
    there = sum(path.is_file() for path in arrived.rglob("?"))
    watched.slow, watched.requests[:] = 0.0, []
    assert start(GET, s3_root, key).wait(60) == 0
    assert watched.count("GET", "/files-") == 8 - there < 8


GET_BY_SIXTEEN = """
import multiprocessing, sys
from pedfrac.storage.store import ArtifactStore
def get(key):
    return ArtifactStore(sys.argv[1]).get(key).file("7").stat().st_size
fork = multiprocessing.get_context("fork")
barrier = fork.Barrier(16)
def at_once(key):
    barrier.wait()
    assert get(key) == 3_000_000
processes = [fork.Process(target=at_once, args=[sys.argv[2]]) for _ in range(16)]
for process in processes:
    process.start()
for process in processes:
    process.join()
print(sum(process.exitcode == 0 for process in processes))
"""


def test_sixteen_processes_fetch_a_pack_once(node, watched, s3_root):
    key = node().produce("kind", maker({str(n): bytes([n]) * 3_000_000 for n in range(8)})).key
    node("two")
    assert start(GET_BY_SIXTEEN, s3_root, key).communicate(timeout=120)[0] == "16\n"
    assert watched.count("GET", "/files-") == 8
    assert watched.count("GET", "/manifest.json") == 16 + 1
