"""Where a bundle lies: a folder, a key among the artifacts, or the champion."""

from pathlib import Path

from pedfrac.config.locations import DEFAULT_MODEL, artifact_root
from pedfrac.promotion.audit_log import CHAMPION, champions_bundle
from pedfrac.storage.store import ArtifactStore


def bundle_folder(bundle: str, artifacts: str) -> Path:
    """Return the folder of a bundle: a folder, a key in the store, or the champion's.

    ``champion`` is that of the model ``pedfrac``, ``champion/NAME`` of another, as the audit log of
    promotions records it. Raises PedfracError where there is none.
    """
    folder, (word, _, model) = Path(bundle), bundle.partition("/")
    if folder.exists() or word not in ("bundle", CHAMPION):
        return folder
    store = ArtifactStore(artifact_root(artifacts))
    key = champions_bundle(store, model or DEFAULT_MODEL) if word == CHAMPION else bundle
    return store.get(key).path
