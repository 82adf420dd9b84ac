"""The model registry on a real store: versions, aliases, and a champion that may not get lost."""

import json
from pathlib import Path
from threading import Barrier, Thread

import pytest
from mlflow.tracking import MlflowClient
from servers import free_ports
from small_bundles import write_small_bundle
from typer.testing import CliRunner

from flows.cli.app import app
from pedfrac.config.locations import TrackingConfig
from pedfrac.errors import PedfracError
from pedfrac.mlflow_runs import start_run, tracking_uri
from pedfrac.promotion import registry as module
from pedfrac.promotion.audit_log import CHAMPION
from pedfrac.promotion.registry import CHALLENGER, Registry


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_small_bundle(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run_id(folder):
    """A retraining's run in a store that all tests of this module share: its tables take long."""
    with start_run(TrackingConfig(), folder, "retrain", {}) as run:
        return run.run_id


@pytest.fixture
def registry(folder, run_id, request):
    """A registry of its own for each test."""
    return Registry.of(TrackingConfig(model=request.node.name), folder)


@pytest.fixture
def register(registry, bundle, run_id, monkeypatch):
    """Register a bundle by a key, without the seconds that writing a whole model takes."""

    def save_model(bundle: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "MLmodel").write_text(str(bundle))

    monkeypatch.setattr(module, "save_model", save_model)
    return lambda key, **tags: registry.register(bundle, run_id, {"bundle": key, **tags})


@pytest.fixture
def client(folder):
    """What anybody may do behind our back."""
    return MlflowClient(tracking_uri(TrackingConfig(), folder))


def test_before_anything_is_registered_there_is_nothing(registry):
    assert registry.versions() == [] and registry.holder(CHAMPION) is None
    assert registry.lost() is None
    registry.drop_alias(CHAMPION)
    with pytest.raises(PedfracError, match=r"no version 1; registered: none"):
        registry.version(1)


def test_the_newest_bundle_is_the_challenger_and_is_found_by_its_tags(registry, register, run_id):
    first = register("bundle/a", split="split/1")
    second = register("bundle/b", split="split/1", report="report/2")
    assert (first.number, second.number) == (1, 2)
    assert second.run_id == run_id
    assert second.tags.items() >= {"bundle": "bundle/b", "report": "report/2"}.items()
    assert registry.versions() == [second, registry.version(1)]
    assert registry.holder(CHALLENGER) == second and registry.version(1).aliases == ()
    with pytest.raises(PedfracError, match=r"no version 3; registered: 1, 2"):
        registry.version(3)


def test_a_bundle_is_registered_once_and_its_tags_are_renewed(registry, register):
    register("bundle/a", report="report/1")
    register("bundle/b")
    again = register("bundle/a", report="report/2")
    assert (again.number, again.tags["report"]) == (1, "report/2")
    assert len(registry.versions()) == 2
    assert registry.holder(CHALLENGER) == again


def test_a_champion_does_not_become_its_own_challenger(registry, register):
    registry.set_alias(CHAMPION, register("bundle/a").number)
    registry.drop_alias(CHALLENGER)
    assert register("bundle/a").aliases == (CHAMPION,)


def test_of_two_who_register_one_bundle_at_once_one_version_stays(
    registry, register, folder, monkeypatch
):
    both = Barrier(2)
    create = Registry._create

    def after_both_looked(*given):
        both.wait()
        return create(*given)

    monkeypatch.setattr(Registry, "_create", after_both_looked)
    racers = [Thread(target=register, args=("bundle/a",)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    (left,) = registry.versions()
    assert registry.holder(CHALLENGER) == left


def test_a_registration_that_dies_leaves_no_version(registry, register, monkeypatch):
    def dies(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", dies)
    with pytest.raises(KeyboardInterrupt):
        register("bundle/a")
    assert registry.versions() == []
    monkeypatch.undo()


def test_the_champion_cannot_be_deleted_others_can(registry, register, client):
    register("bundle/a")
    register("bundle/b")
    registry.set_alias(CHAMPION, 1)
    with pytest.raises(PedfracError, match=r"version 1 of .* is the champion"):
        registry.delete(1)
    client.delete_registered_model_alias(registry.name, CHAMPION)
    with pytest.raises(PedfracError, match="is the champion"):
        registry.delete(1)  # its alias was lost, not given up
    registry.delete(2)
    assert [one.number for one in registry.versions()] == [1]
    assert registry.holder(CHALLENGER) is None
    registry.drop_alias(CHAMPION)
    registry.delete(1)
    assert registry.versions() == []


def test_the_loss_of_the_champion_is_noticed(registry, register, client):
    for key in ("bundle/a", "bundle/b", "bundle/c"):
        register(key)
    registry.set_alias(CHAMPION, 1)
    assert registry.lost() is None
    client.delete_registered_model_alias(registry.name, CHAMPION)
    assert "the alias was dropped" in registry.lost()
    registry.set_alias(CHAMPION, 2)
    assert registry.lost() is None
    client.set_registered_model_alias(registry.name, CHAMPION, "3")
    assert "moved to version 3" in registry.lost()
    registry.set_alias(CHAMPION, 2)
    client.delete_model_version(registry.name, "2")
    assert registry.lost().startswith(f"version 2 of {registry.name} was made champion, but the v")
    registry.drop_alias(CHAMPION)
    assert registry.lost() is None
    client.set_registered_model_alias(registry.name, CHAMPION, "3")
    assert "by other means" in registry.lost()


def test_a_server_that_cannot_be_reached_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (port,) = free_ports(1)
    with pytest.raises(PedfracError, match=f"MLflow at http://127.0.0.1:{port}: "):
        Registry.of(TrackingConfig(uri=f"http://127.0.0.1:{port}"), tmp_path).versions()


def test_the_commands_list_and_delete(registry, register, client, folder, tmp_path):
    for key in ("bundle/a", "bundle/b"):
        register(key)
    registry.set_alias(CHAMPION, 1)
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {{root: x}}\ntracking: {{model: {registry.name}}}\n")

    def run(*command):
        where = ["--config", str(config), "--root", str(folder)]
        return CliRunner().invoke(app, ["registry", *command, *where])

    listed = json.loads(run("list", "--json").stdout)
    assert [one["aliases"] for one in listed["versions"]] == ["challenger", "champion"]
    assert listed["lost"] is None
    refused = run("delete", "1")
    assert refused.exit_code == 1 and "is the champion" in str(refused.exception)
    assert json.loads(run("delete", "2", "--json").stdout)["deleted"] == 2
    client.delete_model_version(registry.name, "1")
    assert "the version was deleted" in json.loads(run("list", "--json").stdout)["lost"]
    nowhere = CliRunner().invoke(app, ["registry", "list", "--root", str(tmp_path / "none")])
    assert "so nothing is registered here" in str(nowhere.exception)
    assert not (tmp_path / "none").exists()
