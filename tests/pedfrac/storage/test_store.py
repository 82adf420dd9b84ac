"""Artifacts: made once, found again, made anew when broken, never half there."""

import json
import os
import shutil
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pedfrac.errors import PedfracError
from pedfrac.storage.files import content_hash, export, file_hash
from pedfrac.storage.manifest import Artifact, broken_files, parse_manifest
from pedfrac.storage.store import ArtifactStore


def maker(text: str, calls: list[str]):
    def make(folder):
        calls.append(text)
        (folder / "a.txt").write_text(text)

    return make


def test_second_call_finds_what_the_first_made(tmp_path):
    store, calls = ArtifactStore(tmp_path), []
    first = store.produce("kind", maker("x", calls), config={"n": 1})
    again = store.produce("kind", maker("y", calls), config={"n": 1})
    other = store.produce("kind", maker("z", calls), config={"n": 2})
    assert calls == ["x", "z"]
    assert first.key == again.key != other.key
    assert again.file("a.txt").read_text() == "x"


def test_the_key_is_known_before_the_artifact_exists(tmp_path):
    store = ArtifactStore(tmp_path)
    parent = store.produce("parent", maker("p", []))
    inputs = {"config": {"n": 1}, "sources": {"file": "abc"}, "parents": {"p": parent}}
    key = store.key("kind", **inputs)
    assert not store.exists(key)
    assert store.produce("kind", maker("x", []), **inputs).key == key
    assert store.exists(key)
    assert key != store.key("kind", **(inputs | {"sources": {}}))


def test_a_changed_file_is_noticed_and_made_again(tmp_path, caplog):
    store, calls = ArtifactStore(tmp_path), []
    made = store.produce("kind", maker("x", calls))
    made.file("a.txt").write_text("tampered")
    assert broken_files(made.path, made.manifest) == ["a.txt"]
    with pytest.raises(PedfracError, match="no verified artifact"):
        store.get(made.key)
    assert store.produce("kind", maker("x", calls)).file("a.txt").read_text() == "x"
    assert "does not verify" in caplog.text


def test_an_unfinished_artifact_does_not_exist_but_goes_on(tmp_path):
    store = ArtifactStore(tmp_path)

    def fail(folder):
        (folder / "part").write_text("1")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.produce("kind", fail, resumable=True)
    assert list(store.of_kind("kind")) == []
    seen = []

    def finish(folder):
        seen.append((folder / "part").read_text())

    store.produce("kind", finish, resumable=True)
    assert seen == ["1"]


def test_a_parent_of_equal_content_gives_the_same_key(tmp_path):
    store = ArtifactStore(tmp_path)
    one = store.produce("parent", maker("same", []), config={"way": 1})
    two = store.produce("parent", maker("same", []), config={"way": 2})
    children = [store.produce("child", maker("c", []), parents={"p": p}) for p in (one, two)]
    assert one.key != two.key
    assert children[0].key == children[1].key


def test_export_replaces_what_was_there(tmp_path):
    for text in ("old", "new"):
        source = tmp_path / text
        source.mkdir()
        (source / text).write_text(text)
        export(source, tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["new"]


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False)))
def test_the_hash_does_not_depend_on_order(value):
    assert content_hash(value) == content_hash(dict(reversed(value.items())))


def test_a_linked_file_keeps_its_fingerprint_and_any_other_is_hashed(tmp_path):
    store = ArtifactStore(tmp_path)
    first = store.produce("first", maker("one", []))

    def make(folder):
        os.link(first.path / "a.txt", folder / "linked")
        shutil.copyfile(first.path / "a.txt", folder / "copied")
        (folder / "new").write_text("two")
        return first

    with mock.patch("pedfrac.storage.manifest.file_hash", wraps=file_hash) as hashed:
        second = store.produce("second", make)
    assert {call.args[0].name for call in hashed.call_args_list} == {"copied", "new"}
    assert second.manifest.files["linked"] == first.manifest.files["a.txt"]
    assert store.verify(second.key) == []


def test_the_digest_is_over_the_files_that_tell_and_old_manifests_tell_by_all(tmp_path):
    def make(parts):
        def write(folder):
            (folder / "content").write_text("pixels")
            for number in range(parts):
                (folder / f"part{number}").write_text("p" * (6 // parts))

        return write

    stores = [ArtifactStore(tmp_path / str(number)) for number in (1, 2)]
    one, two = (
        store.produce("pack", make(parts), told_by=("content",))
        for parts, store in enumerate(stores, start=1)
    )
    assert one.digest == two.digest and one.manifest.files != two.manifest.files
    (two.path / "part1").write_text("qqq")
    assert stores[1].find(two.key) is None, "all files are verified"

    fields = one.manifest.model_dump(exclude={"told_by"})
    old = parse_manifest(json.dumps(fields).encode(), "old")
    names = {name: entry.sha256 for name, entry in old.files.items()}
    assert Artifact(old, lambda: one.path).digest == content_hash(names) != one.digest
