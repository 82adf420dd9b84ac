"""What artifacts were made from, read from their manifests alone."""

from collections.abc import Iterable, Mapping
from typing import Any

from pedfrac.errors import PedfracError
from pedfrac.storage.manifest import Manifest
from pedfrac.storage.store import ArtifactStore


class Lineage:
    """All manifests of a store, and how one artifact went into another."""

    def __init__(self, manifests: Iterable[Manifest]):
        self.manifests: Mapping[str, Manifest] = {m.key: m for m in manifests}

    @classmethod
    def of(cls, store: ArtifactStore) -> "Lineage":
        """Read the manifests of a store, the newest first."""
        return cls(artifact.manifest for artifact in store.of_kind())

    def key(self, abbreviated: str) -> str:
        """Return the one key that starts as given, such as ``pack/1f0``; the whole key will do.

        Raises PedfracError where no key or several do.
        """
        found = [key for key in self.manifests if key.startswith(abbreviated)]
        if abbreviated in found or len(found) == 1:
            return abbreviated if abbreviated in found else found[0]
        if not found:
            raise PedfracError(f"{abbreviated}: no artifact has this key")
        raise PedfracError(f"{abbreviated}: {len(found)} artifacts begin so: {', '.join(found)}")

    def parents(self, key: str) -> dict[str, str]:
        """Return the keys of what an artifact was made from, by role."""
        manifest = self.manifests.get(key)
        return {role: parent.key for role, parent in manifest.parents.items()} if manifest else {}

    def ancestors(self, keys: Iterable[str]) -> set[str]:
        """Return some keys with all that they were made from, directly or not."""
        found: set[str] = set()
        waiting = list(keys)
        while waiting:
            if (key := waiting.pop()) not in found:
                found.add(key)
                waiting += self.parents(key).values()
        return found

    def tree(self, key: str) -> dict[str, Any]:
        """Return an artifact with its ancestors, nested; a removed one is marked as missing."""
        manifest = self.manifests.get(key)
        return {
            "key": key,
            "created": manifest.created if manifest else None,
            "parents": {role: self.tree(parent) for role, parent in self.parents(key).items()},
        }
