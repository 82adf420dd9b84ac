"""A whole retraining whose data and artifacts lie on a real S3 server, and a second node after it.

Not here: what a retraining leaves (test_retrain.py).
"""

import json
from pathlib import Path

import pytest
from commands import tiny
from faults import proxy
from servers import environment

from pedfrac.config.phantoms import PhantomConfig
from pedfrac.phantoms.dataset import write_phantoms


@pytest.fixture(scope="module")
def remote(s3_server, tmp_path_factory):
    """A proxy before a server that holds a data set of phantoms in the bucket ``retrain``."""
    images = tmp_path_factory.mktemp("images")
    write_phantoms(images, PhantomConfig(images=220, scale=0.2, workers=1))
    s3_server.client.create_bucket(Bucket="retrain")
    for path in images.rglob("*"):
        if path.is_file():
            name = f"data/{path.relative_to(images).as_posix()}"
            s3_server.client.upload_file(str(path), "retrain", name)
    with proxy(s3_server.endpoint) as before:
        yield before


def on_node(remote, node: Path, *arguments: str, **changes) -> dict:
    """Run the command line on a node, which is a folder with a cache; return what it prints."""
    node.mkdir(exist_ok=True)
    kept = {"PEDFRAC_CACHE": str(node / "cache"), "PEDFRAC_ARTIFACTS": "s3://retrain/artifacts"}
    done = tiny(
        node,
        *arguments,
        "--json",
        env=environment(remote.endpoint) | kept,
        **{"data.root": "s3://retrain/data"} | changes,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def first(remote, tmp_path_factory):
    """The node of the first retraining, and what it printed."""
    node = tmp_path_factory.mktemp("first")
    return node, on_node(remote, node, "retrain")


def test_results_and_tracking_are_local_and_artifacts_are_not(first, s3_server):
    node, result = first
    assert (node / result["report"]).stat().st_size > 50_000
    assert (node / "results/mlflow.db").exists() and not (node / "artifacts").exists()
    listed = s3_server.client.list_objects_v2(Bucket="retrain", Prefix="artifacts/")["Contents"]
    names = [one["Key"] for one in listed]
    assert f"artifacts/{result['evaluated']['bundle']}/manifest.json" in names
    assert not [name for name in names if ".partial" in name or ".probes" in name]


def test_another_node_trains_from_the_pack_without_the_images(first, remote, tmp_path):
    _, result = first
    remote.requests.clear()
    changed = {"fracture.training.epochs": 1}
    trained = on_node(remote, tmp_path / "second", "train-fracture", **changed)
    assert trained["artifact"] != result["trained"]["generalist"]
    assert remote.count("GET", "/data/images") == remote.count("HEAD", "/data/images") == 0
    pack = result["prepared"]["fracture_pack"]
    assert remote.count("GET", f"/{pack}/files-") > 0


def test_a_second_run_on_another_node_trains_nothing(first, remote, tmp_path):
    _, result = first
    remote.requests.clear()
    again = on_node(remote, tmp_path / "third", "retrain")
    assert again["trained"] == result["trained"] and again["evaluated"] == result["evaluated"]
    assert remote.count("PUT", "-model/") == 0
