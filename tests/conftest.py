"""What all tests share: every Prefect database lies in a temporary folder; a real S3 server."""

import os
import tempfile
import uuid

import pytest

# before Prefect is imported, since it reads its settings once
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="pedfrac-prefect-")
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
# its server takes longer to start than it waits by default where other work takes the cores
os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "120"


def pytest_collection_modifyitems(items):
    """Begin with the longest tests, so that none of them is left to one process at the end."""
    items.sort(key=lambda item: "system" not in item.path.parts)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """A running SeaweedFS for all tests."""
    from servers import seaweed

    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def bucket(s3_server):
    """The name of a new bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3_server.client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def s3_root(s3_server, bucket, tmp_path, monkeypatch):
    """A new prefix in a new bucket, which this process reaches, with a cache of its own."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PEDFRAC_CACHE", str(tmp_path / "cache"))
    return f"s3://{bucket}/some/prefix"
