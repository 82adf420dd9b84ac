"""Promotion: a version becomes the champion, or an earlier one again, in one step.

The ledger is the truth; the registry's alias ``champion`` is its image, set after the record and
mended by whatever touches the ledger next. Not here: the criteria (gate) and how a person is asked
(the flow ``promote``).
"""

import logging
from collections.abc import Sequence

from pedfrac.errors import PedfracError
from pedfrac.promotion.audit_log import (
    CHAMPION,
    CHANGES,
    Record,
    Wish,
    append,
    champion_of,
    last_change,
    records_of,
)
from pedfrac.promotion.champion_bundle import digest_to_pin, verified_folder
from pedfrac.promotion.decision import Decision
from pedfrac.promotion.registry import CHALLENGER, Registry, Version
from pedfrac.storage.store import ArtifactStore

logger = logging.getLogger(__name__)
IMAGED = "promotion"  # the version's tag that says which record its alias is the image of


def promote(
    store: ArtifactStore, registry: Registry, decision: Decision, wish: Wish, version: Version
) -> Record:
    """Make a version the champion in one step; return its record, which pins its bundle's digest.

    Raises PedfracError where the gate refused, the bundle is gone, or the champion is no longer the
    one that the gate compared with: it then says who was faster.
    """
    if not decision.passed:
        raise PedfracError(decision.in_words())
    if version.number != decision.challenger:
        raise PedfracError(
            f"the decision is of version {decision.challenger}, not of version {version.number}"
        )
    refuse_lost(store, registry)

    def may(records: Sequence[Record]) -> None:
        if champion_of(records) != decision.champion:
            faster = last_change(records)
            told = faster.in_words() if faster else "there is no champion"
            raise PedfracError(
                f"version {wish.version} is not promoted: the gate compared it with "
                f"{_named(decision.champion)}, but since then {told}"
            )

    digest = digest_to_pin(store, version.number, version.tags.get("bundle", ""))
    record = append(store, registry.name, wish, version.tags, may, digest)
    reconcile(store, registry)
    return record


def rollback(store: ArtifactStore, registry: Registry, wish: Wish) -> Record:
    """Make an earlier champion the champion again, in one step; return its record.

    Where the alias was moved by something else, the present champion may be brought back, too.
    Raises PedfracError where the version never was a champion, is it now, is gone, or its bundle
    has other files than when it was promoted.
    """
    lost = reconcile(store, registry)
    records = records_of(store, registry.name)
    before = champion_of(records)
    earlier = {one.version: one for one in records if one.event in CHANGES}
    if wish.version not in earlier:
        known = ", ".join(map(str, sorted(earlier))) or "there was none"
        raise PedfracError(f"version {wish.version} was no champion; earlier ones: {known}")
    if wish.version == before and lost is None:
        raise PedfracError(f"version {wish.version} is the champion already")
    if wish.version not in _numbers(registry):
        raise PedfracError(f"version {wish.version} is gone from the registry")
    made = earlier[wish.version]
    digest = digest_to_pin(store, wish.version, made.artifacts.get("bundle", ""))
    verified_folder(store, made)

    def may(now: Sequence[Record]) -> None:
        faster = last_change(now)
        if champion_of(now) != before and faster is not None:
            raise PedfracError(
                f"version {wish.version} is not brought back: since then {faster.in_words()}"
            )

    record = append(store, registry.name, wish, made.artifacts, may, digest)
    reconcile(store, registry)
    return record


def note(store: ArtifactStore, registry: Registry, wish: Wish) -> Record:
    """Write down a rejection, refusal or expiry; return the record that the request has then.

    It may be another's: where a version was approved in the last second, it did not expire.
    """
    version = next((one for one in registry.versions() if one.number == wish.version), None)
    record = append(
        store, registry.name, wish, version.tags if version else {}, lambda records: None
    )
    reconcile(store, registry)
    return record


def reconcile(store: ArtifactStore, registry: Registry) -> str | None:
    """Set the alias to what the ledger says where a promotion was cut short.

    Returns what is wrong where it was not a promotion: the alias was moved, or the champion's
    version deleted, by something other than pedfrac. That is for a person to settle.
    """
    record, holder = last_change(records_of(store, registry.name)), registry.holder(CHAMPION)
    held = f"version {holder.number}" if holder else "no version"
    if record is None:
        if holder is None:
            return None
        return (
            f"{held} holds the alias {CHAMPION}, but no promotion says so: take the alias off and "
            "promote the version"
        )
    champion = next((one for one in registry.versions() if one.number == record.version), None)
    if champion is None:
        return (
            f"the champion is lost: version {record.version} is gone from the registry, though "
            f"{record.in_words()}; bring back an earlier champion by pedfrac rollback"
        )
    imaged = champion.tags.get(IMAGED) == str(record.number)
    if holder is not None and holder.number == record.version and imaged:
        return None
    if imaged:
        return (
            f"the champion is lost: {held} holds the alias {CHAMPION}, but by record "
            f"{record.number} {record.in_words()}; 'pedfrac rollback --to {record.version}' sets "
            "the alias back"
        )
    logger.info(
        "version %d gets the alias %s of record %d", record.version, CHAMPION, record.number
    )
    _image(registry, record)
    return None


def refuse_lost(store: ArtifactStore, registry: Registry) -> None:
    """Mend what was cut short; raise PedfracError where the champion is lost."""
    if lost := reconcile(store, registry):
        raise PedfracError(lost)


def _image(registry: Registry, record: Record) -> None:
    """Let the alias say what the ledger says; the tag, which comes last, says that it does."""
    registry.set_alias(CHAMPION, record.version)
    challenger = registry.holder(CHALLENGER)
    if challenger is not None and challenger.number == record.version:
        registry.drop_alias(CHALLENGER)
    registry.set_tags(record.version, {IMAGED: str(record.number)})


def _numbers(registry: Registry) -> set[int]:
    return {one.number for one in registry.versions()}


def _named(version: int | None) -> str:
    return "no champion" if version is None else f"champion version {version}"
