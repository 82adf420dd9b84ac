"""Where a bundle lies: a folder, a key among the artifacts, or the champion."""

from pathlib import Path

from pedfrac.config.locations import DEFAULT_MODEL, artifact_root
from pedfrac.promotion.audit_log import CHAMPION
from pedfrac.promotion.champion_bundle import champion_folder
from pedfrac.storage.store import ArtifactStore


def bundle_folder(bundle: str, artifacts: str) -> Path:
    """Return the folder of a bundle: a folder, a key in the store, or the champion's.

    ``champion`` is that of the model ``pedfrac``, ``champion/NAME`` of another, as the audit log of
    promotions records it. Raises PedfracError where there is none, or its files are not those that
    were promoted.
    """
    folder, (word, _, model) = Path(bundle), bundle.partition("/")
    if folder.exists() or word not in ("bundle", CHAMPION):
        return folder
    store = ArtifactStore(artifact_root(artifacts))
    if word == CHAMPION:
        return champion_folder(store, model or DEFAULT_MODEL)
    return store.get(bundle).path
