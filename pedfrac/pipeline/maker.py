"""A maker: what an artifact is made of, and the function that makes it from that and no more."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from pedfrac.config.runtime import RuntimeConfig
from pedfrac.storage.code_version import code_digest
from pedfrac.storage.inputs import Inputs
from pedfrac.storage.manifest import Artifact
from pedfrac.storage.store import ArtifactStore

Settings = TypeVar("Settings", bound=BaseModel)
CODE = "code"  # the source that is the digest of a maker's code


@dataclass(frozen=True)
class Given(Generic[Settings]):
    """What a maker receives: settings and parents, which form the key, and the machine.

    ``parents``: artifacts by role. ``runtime`` changes no result and is no part of a key.
    """

    settings: Settings
    parents: Mapping[str, Artifact]
    runtime: RuntimeConfig


@dataclass(frozen=True)
class Maker(Generic[Settings]):
    """How artifacts of a kind are made.

    ``make(folder, given)`` writes the files. ``code``: the parts of pedfrac whose files count (see
    ``code_digest``), since what is computed otherwise must not be taken for what is there; none
    where the artifact costs more than that is worth.
    """

    kind: str
    make: Callable[[Path, Given[Settings]], object]
    code: tuple[str, ...] = ()

    def inputs(
        self,
        settings: Settings,
        parents: Mapping[str, Artifact],
        sources: Mapping[str, str] | None = None,
    ) -> Inputs:
        """Return what the key of an artifact is made of."""
        by_code = {CODE: code_digest(self.code)} if self.code else {}
        return Inputs.of(
            self.kind, settings.model_dump(mode="json"), {**(sources or {}), **by_code}, parents
        )

    def produce(
        self,
        store: ArtifactStore,
        settings: Settings,
        parents: Mapping[str, Artifact],
        runtime: RuntimeConfig,
        sources: Mapping[str, str] | None = None,
    ) -> Artifact:
        """Return the artifact of settings, parents and ``sources``; make it where it is not there.

        ``sources``: fingerprints of other inputs, which ``settings`` or ``parents`` must lead to.
        """
        inputs = self.inputs(settings, parents, sources)
        return store.produce(
            self.kind,
            partial(self._make, given=Given(settings, parents, runtime)),
            config=inputs.config,
            sources=inputs.sources,
            parents=parents,
        )

    def _make(self, folder: Path, given: Given[Settings]) -> object:
        return self.make(folder, given)
