"""A registry in SQLite with versions that are names and tags alone, and processes that use it."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

from mlflow.tracking import MlflowClient
from small_bundles import write_bundle_of_words

from pedfrac.bundle.checksums import seal
from pedfrac.config.locations import TrackingConfig
from pedfrac.config.promotion import GateConfig
from pedfrac.errors import PedfracError
from pedfrac.promotion.audit_log import Wish
from pedfrac.promotion.decision import Decision
from pedfrac.promotion.promotion import promote
from pedfrac.promotion.registry import Registry
from pedfrac.storage.files import file_hash
from pedfrac.storage.manifest import MANIFEST, Artifact
from pedfrac.storage.store import ArtifactStore

BY = "Ada Lovelace"


def make_registry(folder: Path, model: str, versions: int) -> Registry:
    """Return a registry of some versions, the last the challenger."""
    config = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db", model=model)
    registry = Registry.of(config, folder)
    client = MlflowClient(config.uri)
    client.create_registered_model(model)
    for number in range(1, versions + 1):
        tags = {"bundle": f"bundle/b{number}", "code version": "1"}
        client.create_model_version(model, f"file:///models/{number}", tags=tags)
    registry.set_alias("challenger", versions)
    return registry


def give_bundles(store: ArtifactStore, registry: Registry) -> dict[int, Artifact]:
    """Give each version a bundle of its own in the store; return them."""
    made = {}
    for version in registry.versions():
        number = version.number
        made[number] = store.produce(
            "bundle",
            lambda folder, words=number: write_bundle_of_words(folder, words),
            config={"version": number},
        )
        registry.set_tags(number, {"bundle": made[number].key})
    return made


def replace_weights(artifact: Artifact) -> None:
    """Replace the weights of a network, and let checksums and manifest say that this is right."""
    weights = artifact.path / "generalist.safetensors"
    weights.write_text("weights of somebody else")
    seal(artifact.path, [weights.name])
    listed = artifact.path / MANIFEST
    manifest = json.loads(listed.read_text())
    for name, entry in manifest["files"].items():
        file = artifact.path / name
        entry |= {"sha256": file_hash(file), "size": file.stat().st_size}
    listed.write_text(json.dumps(manifest))


def decision(challenger: int, champion: int | None, passed: bool = True) -> Decision:
    """Return a decision without criteria."""
    return Decision(
        challenger=challenger,
        champion=champion,
        passed=passed,
        criteria=(),
        images=None,
        patients=None,
        config=GateConfig(),
    )


def wish(version: int, event: str = "promotion", request: str = "", by: str = BY) -> Wish:
    """Return a wish with a reason, of a request of its own."""
    return Wish(event, version, by, "because", request or f"{event}-{version}-{by}")


class Cut(Registry):
    """A registry whose process is killed before an alias is set."""

    def set_alias(self, alias: str, number: int) -> None:
        """Be killed."""
        os.kill(os.getpid(), signal.SIGKILL)


class CutTag(Registry):
    """A registry whose process is killed before a tag says that the alias is set."""

    def set_tags(self, number: int, tags: dict) -> None:
        """Be killed."""
        os.kill(os.getpid(), signal.SIGKILL)


class CutStore(ArtifactStore):
    """A store whose process is killed when the record is written, but not published."""

    def produce(self, kind, make, **inputs):
        """Be killed within."""

        def cut(folder):
            make(folder)
            os.kill(os.getpid(), signal.SIGKILL)

        return super().produce(kind, cut, **inputs)


class Writer:
    """A process that promotes a version when it is told to go on."""

    def __init__(self, root: object, registry: Registry, version: int, how: str = ""):
        # forked from a process that has imported all, which takes seconds, and nothing else
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(["pedfrac.promotion.promotion"])
        self._here, there = processes.Pipe()
        uri = registry._client.tracking_uri
        given = (there, dict(os.environ), str(root), uri, registry.name, version, how)
        self._process = processes.Process(target=_promote, args=given)
        self._process.start()
        there.close()
        assert self._here.recv() == "ready"

    def go(self) -> None:
        """Let it go on."""
        self._here.send("go")

    def ended(self) -> tuple[int | None, str]:
        """Wait for its end; return its exit code and the error that it told."""
        self._process.join(300)
        told = self._here.recv() if self._process.exitcode == 0 else ""
        return self._process.exitcode, told


def _promote(pipe, environment: dict, root, uri, model, version: int, how: str) -> None:
    os.environ.update(environment)
    store = (CutStore if how == "store" else ArtifactStore)(root)
    registry = {"alias": Cut, "tag": CutTag}.get(how, Registry)(MlflowClient(uri), model)
    candidate = registry.version(version)
    pipe.send("ready")
    pipe.recv()
    try:
        wanted = wish(version, by=f"writer {version}")
        promote(store, registry, decision(version, None), wanted, candidate)
        pipe.send("")
    except PedfracError as error:
        pipe.send(str(error))
