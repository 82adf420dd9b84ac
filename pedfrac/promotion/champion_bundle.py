"""The champion's bundle, held against the digest that the audit log keeps of it.

A bundle's own checksums and its manifest lie beside its files: whoever replaces one can rewrite the
others. The record of the promotion is kept apart from them. Not here: what a digest is made of
(bundle).
"""

from pathlib import Path

from pedfrac.bundle.bundle import bundle_digest
from pedfrac.errors import PedfracError
from pedfrac.promotion.audit_log import DONE, Record, last_change, records_of
from pedfrac.storage.store import ArtifactStore


def champion_folder(store: ArtifactStore, model: str) -> Path:
    """Return the folder of the champion's bundle.

    Raises PedfracError where there is no champion, or its files are not those that were promoted.
    """
    made = last_change(records_of(store, model))
    if made is None:
        raise PedfracError(f"model {model} has no champion yet: pedfrac promote makes one")
    return verified_folder(store, made)


def verified_folder(store: ArtifactStore, made: Record) -> Path:
    """Return the folder of the bundle that a record made champion.

    Records without a digest, which older versions wrote, hold the bundle to its own checksums only.
    Raises PedfracError where its files are not those that were promoted.
    """
    key = made.artifacts["bundle"]
    folder = store.get(key).path
    if made.bundle_digest is None:
        return folder
    found = bundle_digest(folder)
    if found != made.bundle_digest:
        raise PedfracError(
            f"{folder}: is not the bundle that became champion: version {made.version} was "
            f"{DONE[made.event]} with the digest {made.bundle_digest}, but its files have {found}; "
            "restore them from a copy, or bring back another champion by pedfrac rollback"
        )
    return folder


def digest_to_pin(store: ArtifactStore, version: int, key: str) -> str:
    """Return the digest of the bundle of a version that is to become champion.

    Raises PedfracError where the bundle is missing or broken.
    """
    if not key or not store.exists(key):
        raise PedfracError(f"version {version}: its bundle {key} is gone from the store")
    return bundle_digest(store.get(key).path)
