"""Stamps: what was verified once is not hashed again, and whatever changes is."""

import json
import os
import time
from unittest import mock

import pytest

from pedfrac.storage.files import file_hash
from pedfrac.storage.local_backend import LocalFolder
from pedfrac.storage.manifest import FileEntry
from pedfrac.storage.store import ArtifactStore
from pedfrac.storage.verification import TICK, Stamp, notes

OLD = time.time_ns() - 10**12


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        (tmp_path / "folder" / name).write_text(name * 10)
        os.utime(tmp_path / "folder" / name, ns=(OLD, OLD))
    return tmp_path / "folder"


def entries(folder):
    return {
        path.name: FileEntry(sha256=file_hash(path), size=path.stat().st_size)
        for path in sorted(folder.iterdir())
    }


@pytest.fixture
def hashed():
    with mock.patch("pedfrac.storage.manifest.file_hash", wraps=file_hash) as hashing:
        yield lambda: sorted(call.args[0].name for call in hashing.call_args_list)


def test_what_was_verified_is_not_hashed_again(folder, tmp_path, hashed):
    files, stamp = entries(folder), Stamp(tmp_path / "stamps" / "x.json", folder)
    assert not stamp.covers(files)
    assert stamp.sound(files) == {"a", "b"}
    stamp.write("x", files, files)
    assert stamp.covers(files) and stamp.sound(files) == {"a", "b"}
    assert hashed() == ["a", "b"]
    assert [(one.name, one.size) for one in notes(tmp_path / "stamps")] == [("x", 20)]


def rewrite(path):
    path.write_text("c" * 10)


def replace(path):
    other = path.with_name("other")
    other.write_text("c" * 10)
    os.utime(other, ns=(OLD, OLD))
    other.replace(path)


def lengthen(path):
    path.write_text("a" * 11)
    os.utime(path, ns=(OLD, OLD))


def remove(path):
    path.unlink()


@pytest.mark.parametrize("change", [rewrite, replace, lengthen, remove])
def test_each_change_is_noticed(folder, tmp_path, change):
    files, stamp = entries(folder), Stamp(tmp_path / "x.json", folder)
    stamp.write("x", files, files)
    change(folder / "a")
    assert not stamp.covers(files)
    assert stamp.sound(files) == {"b"}


def test_a_file_that_only_looks_changed_is_sound(folder, tmp_path, hashed):
    files, stamp = entries(folder), Stamp(tmp_path / "x.json", folder)
    stamp.write("x", files, files)
    (folder / "a").touch()
    assert not stamp.covers(files)
    assert stamp.sound(files) == {"a", "b"} and hashed() == ["a"]


def test_other_expectations_are_not_covered(folder, tmp_path):
    files, stamp = entries(folder), Stamp(tmp_path / "x.json", folder)
    stamp.write("x", files, files)
    other = files | {"a": files["a"].model_copy(update={"sha256": "0" * 64})}
    assert not stamp.covers(other) and stamp.sound(other) == {"b"}
    assert not stamp.covers({"a": files["a"]})


def test_a_file_younger_than_a_tick_of_the_clock_is_not_noted(folder, tmp_path):
    files, stamp = entries(folder), Stamp(tmp_path / "x.json", folder)
    now = time.time_ns()
    os.utime(folder / "a", ns=(now, now))
    with mock.patch("pedfrac.storage.verification.time.time_ns", return_value=now + TICK // 2):
        stamp.write("x", files, files)
    assert not stamp.covers(files)
    (folder / "a").write_text("c" * 10)  # within the same tick
    os.utime(folder / "a", ns=(now, now))
    assert stamp.sound(files) == {"b"}


@pytest.mark.parametrize("content", ["", "{", "{}", '{"name": "x"}'])
def test_a_torn_stamp_notes_nothing(folder, tmp_path, content):
    files, stamp = entries(folder), Stamp(tmp_path / "x.json", folder)
    (tmp_path / "x.json").write_text(content)
    assert not stamp.covers(files) and stamp.sound(files) == {"a", "b"}
    assert list(notes(tmp_path)) == []


def make(folder):
    for name in ("a", "b"):
        (folder / name).write_text(name * 10)
        os.utime(folder / name, ns=(OLD, OLD))


def test_an_artifact_in_a_folder_is_hashed_when_made_and_by_verify(tmp_path, hashed):
    store = ArtifactStore(tmp_path)
    made = store.produce("thing", make)
    assert hashed() == ["a", "b"]
    assert store.produce("thing", make).path == store.get(made.key).path
    assert store.find(made.key) is not None and hashed() == ["a", "b"]
    assert store.verify(made.key) == [] and hashed() == ["a", "a", "b", "b"]


def test_a_file_changed_without_a_trace_is_noticed_by_verify(tmp_path):
    store = ArtifactStore(tmp_path)
    made = store.produce("thing", make)
    (made.path / "a").write_text("c" * 10)
    os.utime(made.path / "a", ns=(OLD, OLD))
    assert store.find(made.key) is not None
    assert store.verify(made.key) == ["a"]


def test_stamps_are_no_artifacts_and_go_with_theirs(tmp_path):
    store = ArtifactStore(tmp_path)
    made = store.produce("thing", make)
    assert [one.name for one in notes(tmp_path / ".stamps")] == [made.key]
    assert [one.key for one in store.of_kind()] == [made.key]
    store.remove(made.manifest)
    assert list((tmp_path / ".stamps").iterdir()) == []


def test_a_store_that_cannot_be_written_is_read(tmp_path, monkeypatch):
    store = ArtifactStore(tmp_path)
    made = store.produce("thing", make)
    (tmp_path / ".stamps").rename(tmp_path / "away")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pedfrac.storage.verification.Path.mkdir", refuse)
    assert LocalFolder(tmp_path).open(made.manifest) == (made.path, [])
    (made.path / "a").write_text("c" * 10)
    assert store.find(made.key) is None


def test_the_stamp_is_whole_whatever_writes_at_once(folder, tmp_path):
    files, stamp = entries(folder), Stamp(tmp_path / "x.json", folder)
    stamp.write("x", files, files)
    killed = mock.patch("pedfrac.storage.verification.Path.replace", side_effect=KeyboardInterrupt)
    with killed, pytest.raises(KeyboardInterrupt):
        stamp.write("x", files, ())
    assert stamp.covers(files)
    assert json.loads((tmp_path / "x.json").read_text())["files"].keys() == {"a", "b"}
