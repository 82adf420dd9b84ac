"""Keys: what steps hand on to each other, and the store that they lie in."""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from pedfrac.config.retrain import RetrainConfig
from pedfrac.storage.manifest import Artifact
from pedfrac.storage.store import ArtifactStore

Progress = Callable[[int, int], None]


class Prepared(BaseModel):
    """Keys of all that is needed before the first training."""

    model_config = ConfigDict(frozen=True)
    records: str
    cohort: str
    split: str
    fracture_pack: str
    age_pack: str


class Trained(BaseModel):
    """Keys of all trained models; specialists are ordered by age group."""

    model_config = ConfigDict(frozen=True)
    age: str
    generalist: str
    specialists: tuple[str, ...]


class Evaluated(BaseModel):
    """Keys of the bundle and of what is known about it."""

    model_config = ConfigDict(frozen=True)
    bundle: str
    evaluation: str
    explanation: str
    robustness: str


def store_of(config: RetrainConfig) -> ArtifactStore:
    """Return the store that the configuration names."""
    return ArtifactStore(config.artifact_root)


def pack_and_split(config: RetrainConfig, pack: str, split: str) -> dict[str, Artifact]:
    """Return what a training learns from."""
    store = store_of(config)
    return {"pack": store.peek(pack), "split": store.peek(split)}


def scored_and_packed(
    store: ArtifactStore, prepared: Prepared, bundle: str, evaluation: str
) -> dict[str, Artifact]:
    """Return the artifacts needed to score the images of an evaluation again, by role."""
    keys = {"bundle": bundle, "evaluation": evaluation, "fracture_pack": prepared.fracture_pack}
    return {role: store.peek(key) for role, key in keys.items()}


def parents_of(store: ArtifactStore, prepared: Prepared, **more: str) -> dict[str, Artifact]:
    """Return all that was prepared and more, by name, from their keys."""
    return {name: store.peek(key) for name, key in (prepared.model_dump() | more).items()}
