"""What an artifact is made from: its key, and in what two sets of inputs differ."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from pedfrac.errors import PedfracError
from pedfrac.storage.files import content_hash, plain_numbers
from pedfrac.storage.manifest import SCHEMA_VERSION, Artifact, Manifest, Parent

ABSENT = "nothing"


class Inputs(BaseModel):
    """All that forms the key of an artifact; it may travel to another machine as JSON.

    ``config``: the settings of its maker, as JSON. ``sources``: fingerprints of inputs from outside
    the store. ``parents``: the artifacts it is made from, by role.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str
    config: dict[str, Any] = {}
    sources: dict[str, str] = {}
    parents: dict[str, Parent] = {}

    @classmethod
    def of(
        cls,
        kind: str,
        config: Mapping[str, Any] | None = None,
        sources: Mapping[str, str] | None = None,
        parents: Mapping[str, Artifact] | None = None,
    ) -> "Inputs":
        """Return the inputs of an artifact, its parents by key and digest."""
        found = {
            name: Parent(key=parent.key, digest=parent.digest)
            for name, parent in (parents or {}).items()
        }
        return cls(kind=kind, config=dict(config or {}), sources=dict(sources or {}), parents=found)

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> "Inputs":
        """Return the inputs of an artifact that is there."""
        return cls(**{name: getattr(manifest, name) for name in cls.model_fields})

    @property
    def key(self) -> str:
        """The key, such as ``split/1f0c…``: equal settings and contents give equal keys."""
        contents = {name: parent.digest for name, parent in self.parents.items()}
        formed = [self.kind, SCHEMA_VERSION, self.config, self.sources, contents]
        return f"{self.kind}/{content_hash(formed)[:16]}"

    def differences(self, other: "Inputs") -> list[str]:
        """Return in words what differs: each setting, source and parent with both values."""
        mine, theirs = self._named(), other._named()
        return [
            f"{name} is {mine.get(name, ABSENT)} here and {theirs.get(name, ABSENT)} there"
            for name in dict.fromkeys([*mine, *theirs])
            if mine.get(name, ABSENT) != theirs.get(name, ABSENT)
        ]

    def refuse_other(self, expected: "Inputs", name: str) -> None:
        """Raise PedfracError that names what differs from the inputs that a parent run expects.

        ``name``: what is made, in words.
        """
        if self.key == expected.key:
            return
        told = "; ".join(self.differences(expected))
        raise PedfracError(
            f"{name}: this worker would make {self.key}, but the run that asked for it expects "
            f"{expected.key}: {told}"
        )

    def _named(self) -> dict[str, str]:
        return {
            "kind": self.kind,
            **{f"setting {name}": value for name, value in _leaves(self.config)},
            **{f"source {name}": value for name, value in self.sources.items()},
            **{
                f"parent {name}": f"{parent.key} (content {parent.digest[:12]})"
                for name, parent in self.parents.items()
            },
        }


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", repr(plain_numbers(value))
