"""Input data on a real S3 server: mirrored once a node, kept like the objects, named like them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from faults import proxy
from servers import environment

from pedfrac.config.data import DataConfig
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.data import source
from pedfrac.data.records import read_records
from pedfrac.data.source import InputFile
from pedfrac.errors import PedfracError
from pedfrac.phantoms.dataset import write_phantoms


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_phantoms(folder, PhantomConfig(images=12, scale=0.1, workers=1))
    return folder


@pytest.fixture
def remote(images, s3_server, s3_root, bucket, monkeypatch):
    """Configuration of a data set in a bucket, the proxy before it, and the bucket's client."""
    for path in images.rglob("*"):
        if path.is_file():
            name = f"some/prefix/data/{path.relative_to(images).as_posix()}"
            s3_server.client.upload_file(str(path), bucket, name)
    s3_server.client.put_object(Bucket=bucket, Key="some/prefix/data/images.zip", Body=b"unwanted")
    with proxy(s3_server.endpoint) as before:
        for name, value in environment(before.endpoint).items():
            monkeypatch.setenv(name, value)
        yield DataConfig(root=f"{s3_root}/data/"), before, s3_server.client


def image_requests(before):
    return before.count("GET", "/data/images")


def test_the_mirror_reads_like_the_folder(remote, images):
    config, before, _ = remote
    assert source.fetched(DataConfig(root=str(images))).root == str(images)
    local = source.fetched(config)
    assert read_records(local).table.equals(read_records(DataConfig(root=str(images))).table)
    assert image_requests(before) == 12
    assert source.fetched(config) == local
    assert image_requests(before) == 12 and before.count("GET", "images.zip") == 0


def test_only_what_changed_is_fetched_and_what_is_gone_goes(remote, bucket):
    config, before, client = remote
    local = source.fetched(config)
    table = read_records(local).table
    first, second = table["image"][:2]
    state = source.fingerprint(config)
    client.delete_object(Bucket=bucket, Key=f"some/prefix/data/{first}")
    body = client.get_object(Bucket=bucket, Key=f"some/prefix/data/{second}")["Body"].read()
    changed = bytes([body[0] ^ 1]) + body[1:]  # of the same size
    client.put_object(Bucket=bucket, Key=f"some/prefix/data/{second}", Body=changed)
    assert source.fingerprint(config) != state
    before.requests.clear()
    source.fetched(config)
    assert image_requests(before) == 1
    assert not (Path(local.root) / first).exists()
    assert (Path(local.root) / second).read_bytes() == changed


def test_an_object_overwritten_within_a_second_by_one_of_its_size_is_another(tmp_path):
    second = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    before, after = InputFile(3, "etag of one", second), InputFile(3, "etag of another", second)
    (tmp_path / "image.png").write_bytes(b"one")
    before.date(tmp_path / "image.png")
    assert before.fits(tmp_path / "image.png") and not after.fits(tmp_path / "image.png")
    assert (tmp_path / "image.png").stat().st_mtime_ns % 1000 == 0


def test_names_and_states_do_not_depend_on_the_node(remote, tmp_path, monkeypatch):
    config, before, _ = remote
    one = source.origin(config), source.fingerprint(config)
    monkeypatch.setenv("PEDFRAC_CACHE", str(tmp_path / "elsewhere"))
    same_place = config.model_copy(update={"root": config.root.rstrip("/")})
    assert (source.origin(same_place), source.fingerprint(same_place)) == one
    assert image_requests(before) == 0  # a listing is enough


def test_without_images_the_table_alone_is_fetched(remote):
    config, before, _ = remote
    table = read_records(source.fetched(config.model_copy(update={"images": False}))).table
    assert len(table) == 12
    assert image_requests(before) == 0 and before.count("GET", "/labels/") == 0


def test_a_prefix_without_a_data_set_is_named(remote, s3_root):
    with pytest.raises(PedfracError, match=r"some/prefix/nothing/dataset.csv: is missing"):
        source.fingerprint(DataConfig(root=f"{s3_root}/nothing"))
