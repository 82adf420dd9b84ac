"""Objects on a real S3 server: whole or refused, one winner, patience, and clear errors."""

import hashlib
import threading
import time

import pytest
from faults import proxy, until
from servers import environment, rclone

from pedfrac.errors import PedfracError
from pedfrac.storage import s3_client as module
from pedfrac.storage.s3_client import PART, Objects, Upload


def upload(path, name, content):
    path.write_bytes(content)
    return Upload(path, name, hashlib.sha256(content).hexdigest())


@pytest.fixture
def objects(s3_root):
    return Objects(s3_root)


def test_what_is_put_is_listed_got_and_deleted(objects):
    assert objects.get("a/x") is None and not objects.exists("a/x")
    for name in ("a/x", "a/b/y ö", "c/z"):
        objects.put(name, name.encode())
    assert objects.get("a/b/y ö") == "a/b/y ö".encode()
    assert [found.name for found in objects.listing("a/")] == ["a/b/y ö", "a/x"]
    assert objects.folders() == ["a", "c"] and objects.folders("a/") == ["b"]
    objects.delete(["a/x", "not there"])
    assert not objects.exists("a/x") and objects.exists("c/z")


def test_files_small_and_in_parts_come_back_whole(objects, tmp_path):
    large = bytes(range(256)) * (PART // 256) * 2 + b"odd"
    contents = {"large": large, "empty": b"", **{f"n/{i}": b"x" * i for i in range(30)}}
    files = [
        upload(tmp_path / str(i), name, content)
        for i, (name, content) in enumerate(contents.items())
    ]
    objects.upload(files)
    targets = {name: tmp_path / f"back-{i}" for i, name in enumerate(contents)}
    heard = []
    assert objects.download(targets | {"no": tmp_path / "no"}, heard.append) == ["no"]
    assert sorted(heard) == sorted(contents)
    assert all(targets[name].read_bytes() == contents[name] for name in contents)


def test_a_file_that_is_not_what_was_hashed_is_refused(objects, tmp_path):
    file = upload(tmp_path / "a", "a", b"right")
    file.path.write_bytes(b"wrong")
    with pytest.raises(PedfracError, match=r"some/prefix/a: BadDigest"):
        objects.upload([file])
    assert not objects.exists("a")


def test_of_many_writers_of_one_name_one_wins(objects):
    barrier, won = threading.Barrier(16), []

    def race(number):
        barrier.wait()
        if objects.put_new("name", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert objects.get("name") == str(won[0]).encode()
    assert objects.put_new("name", str(won[0]).encode())  # an answer that was lost is no defeat


def test_a_store_that_ignores_conditions_is_found_out_and_named_once(tmp_path, monkeypatch, caplog):
    with rclone(tmp_path / "rclone") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.client.create_bucket(Bucket="bucket")
        objects = Objects("s3://bucket/prefix")
        assert objects.put_new("name", b"1")
        assert not objects.put_new("name", b"2")
        assert objects.get("name") == b"1"
        large = upload(tmp_path / "large", "large", b"x" * (PART + 1))
        objects.upload([large])
        objects.download({"large": tmp_path / "back"})
        assert (tmp_path / "back").read_bytes() == large.path.read_bytes()
    warnings = [one for one in caplog.records if "does not honour conditional" in one.message]
    assert len(warnings) == 1


@pytest.mark.parametrize(("fault", "seconds"), (("busy", 10), ("cut", 5), ("half", 5)))
def test_faults_that_pass_are_lived_through(
    fault, seconds, s3_server, s3_root, tmp_path, monkeypatch
):
    with proxy(s3_server.endpoint) as before:
        for name, value in environment(before.endpoint).items():
            monkeypatch.setenv(name, value)
        objects = Objects(s3_root)
        contents = {f"n{i}": bytes([i]) * 200_000 for i in range(12)}
        files = [upload(tmp_path / name, name, content) for name, content in contents.items()]
        if fault == "half":
            objects.upload(files)
        began = time.monotonic()
        before.fault = until(seconds, fault)
        if fault != "half":
            objects.upload(files)
            assert time.monotonic() - began >= seconds
            before.fault = until(1, fault)
        assert objects.download({name: tmp_path / f"{name}.back" for name in contents}) == []
        assert objects.get("n3") == contents["n3"]
        assert before.failed > len(files)
    for name, content in contents.items():
        assert (tmp_path / f"{name}.back").read_bytes() == content


def test_an_outage_without_end_is_an_error_that_names_the_object(objects, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(PedfracError, match=r"some/prefix/x: Could not connect to the endpoint"):
        objects.get("x")


def test_what_the_user_got_wrong_is_said_at_once(s3_root, objects, monkeypatch):
    with pytest.raises(PedfracError, match="must look like s3://bucket/prefix"):
        Objects("s3:///prefix")
    with pytest.raises(PedfracError, match="NoSuchBucket"):
        Objects("s3://no-such-bucket/x").get("y")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(PedfracError, match="SignatureDoesNotMatch"):
        objects.get("x")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PedfracError, match="no credentials found"):
        objects.get("x")
