"""One platform for all tests of this folder: Prefect, MLflow, S3 and workers, as deployed."""

import time
from collections.abc import Iterator

import pytest
from faults import proxy
from platforms import Platform, children, config, platform
from servers import environment

from pedfrac.config.phantoms import PhantomConfig
from pedfrac.phantoms.dataset import write_phantoms
from pedfrac.storage.store import ArtifactStore


def pytest_collection_modifyitems(items):
    """Mark what is here, which takes minutes (make test-system)."""
    for item in items:
        if "platform" in item.path.parts:
            item.add_marker(pytest.mark.platform)
            item.add_marker(pytest.mark.timeout(2400))


@pytest.fixture(scope="session")
def s3(s3_server):
    """The S3 server behind a proxy that can fail."""
    s3_server.client.create_bucket(Bucket="pools")
    with proxy(s3_server.endpoint) as between:
        yield between


@pytest.fixture(scope="session")
def stage(tmp_path_factory, s3) -> Iterator[Platform]:
    """The whole platform with two workers for parents and two for trainings."""
    folder = tmp_path_factory.mktemp("platform")
    write_phantoms(folder / "data", PhantomConfig(images=300, scale=0.2, workers=2))
    with platform(folder, environment(s3.endpoint), "s3://pools/first") as running:
        running.start_workers("cpu", 2)
        running.start_workers("gpu", 2)
        yield running


@pytest.fixture
def store(s3, stage, monkeypatch):
    """Return the store below a name, as this process sees it, with a cache of its own."""
    for name, value in environment(s3.endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PEDFRAC_CACHE", str(stage.folder / "cache-of-the-test"))
    return lambda name: ArtifactStore(f"s3://pools/{name}")


@pytest.fixture(scope="session")
def first(stage):
    """An undisturbed retraining, begun as a click in the UI does."""
    begun = time.time()
    run = stage.begin("retrain/retrain", config(stage, "first"))
    return run, stage.finish(run), children(stage, begun)
