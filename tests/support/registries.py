"""A registry in SQLite with versions that are names and tags alone, and processes that use it."""

import os
import signal
import sys
from pathlib import Path

from mlflow.tracking import MlflowClient

from pedfrac.config import GateConfig, TrackingConfig
from pedfrac.errors import PedfracError
from pedfrac.gate import Decision
from pedfrac.promotion import Wish, promote
from pedfrac.registry import Registry
from pedfrac.storage import ArtifactStore

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


def decision(challenger: int, champion: int | None, passed: bool = True) -> Decision:
    """Return a decision without criteria."""
    return Decision(
        challenger=challenger,
        champion=champion,
        passed=passed,
        criteria=(),
        films=None,
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


def main(root: str, uri: str, model: str, version: str, how: str, gate: str) -> None:
    """Promote a version in this process, as soon as the file ``gate`` is there."""
    store = (CutStore if how == "store" else ArtifactStore)(root)
    kind = {"alias": Cut, "tag": CutTag}.get(how, Registry)
    registry = kind(MlflowClient(uri), model)
    candidate = registry.version(int(version))
    print("ready", flush=True)
    while not Path(gate).exists():
        pass
    try:
        wanted = wish(candidate.number, by=f"writer {version}")
        promote(store, registry, decision(candidate.number, None), wanted, candidate)
    except PedfracError as error:
        sys.exit(f"pedfrac: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
