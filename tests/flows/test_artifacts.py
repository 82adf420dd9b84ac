"""The command ``pedfrac artifacts`` on a folder and on a real S3 server."""

import json

import pytest
from typer.testing import CliRunner

from flows.cli.artifacts import artifacts
from pedfrac.storage.store import ArtifactStore


@pytest.fixture(params=("folder", "s3"))
def root(request, tmp_path):
    return request.getfixturevalue("s3_root") if request.param == "s3" else str(tmp_path / "a")


@pytest.fixture
def made(root):
    """A pack and a report made from it."""
    store = ArtifactStore(root)
    pack = store.produce("pack", lambda folder: (folder / "f").write_text("images"))
    write = lambda folder: (folder / "report.html").write_text("page")  # noqa: E731
    return pack, store.produce("report", write, config={"n": 1}, parents={"pack": pack})


def run(root, *words, fails=False):
    done = CliRunner().invoke(artifacts, [*words, "--root", root])
    assert (done.exit_code != 0) == fails, (done.output, done.exception)
    return done.output


def test_list_show_and_lineage(root, made):
    pack, report = made
    listed = json.loads(run(root, "list", "--json"))["artifacts"]
    assert {row["key"]: row["size"] for row in listed} == {pack.key: 6, report.key: 4}
    assert pack.key in run(root, "list", "--kind", "pack")
    shown = json.loads(run(root, "show", report.key[:12], "--json"))
    assert shown["parents"]["pack"]["key"] == pack.key
    assert shown["lies_at"].startswith(f"{root}/{report.key}")
    assert "report.html" in run(root, "show", report.key)
    assert (
        json.loads(run(root, "lineage", "report", "--json"))["parents"]["pack"]["key"] == pack.key
    )
    assert f"pack {pack.key}" in run(root, "lineage", report.key)


def test_verify_reads_what_is_kept_and_not_what_is_cached(root, made, s3_server, bucket):
    pack, _ = made
    assert json.loads(run(root, "verify", "--json")) == {"verified": 2, "broken": {}}
    if root.startswith("s3://"):
        name = f"some/prefix/{pack.key}/{pack.manifest.place}/f"
        s3_server.client.put_object(Bucket=bucket, Key=name, Body=b"IMAGES")
    else:
        pack.file("f").write_text("IMAGES")
    found = json.loads(run(root, "verify", "--json", fails=True))
    assert found == {"verified": 1, "broken": {pack.key: ["f"]}}
    run(root, "verify", "report")


def test_gc_says_first_and_removes_when_told(root, made):
    store = ArtifactStore(root)
    lone = store.produce("model", lambda folder: (folder / "f").write_text("lone"))
    words = ["gc", "--older-than", "0d", "--json"]
    said = json.loads(run(root, *words))
    assert [row["key"] for row in said["removed"]] == [lone.key] and not said["deleted"]
    assert store.exists(lone.key)
    assert json.loads(run(root, *words, "--keep", lone.key))["removed"] == []
    assert json.loads(run(root, *words, "--delete"))["bytes"] == 4
    assert not store.exists(lone.key)
    assert all(store.verify(artifact.key) == [] for artifact in made)
    assert "needed by another" in run(root, "gc", "--older-than", "0d")
