"""Promotion: the ledger of which version is the champion, who decided it, when and why.

Each record is an artifact whose key follows from the record before it alone, so that of two writers
one wins and nothing can be slipped in between. The ledger is the truth; the registry's alias
``champion`` is its image, mended by whatever touches the ledger next. Not here: the criteria (gate)
and how a person is asked (the flow ``promote``).
"""

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pedfrac.errors import PedfracError
from pedfrac.gate import Decision
from pedfrac.registry import Registry, Version
from pedfrac.storage import Artifact, ArtifactStore, write_json

logger = logging.getLogger(__name__)

KIND, RECORD = "promotion", "record.json"
CHAMPION, CHALLENGER = "champion", "challenger"
IMAGED = "promotion"  # the version's tag that says which record its alias is the image of
Event = Literal["promotion", "rollback", "rejection", "refusal", "expiry"]
CHANGES = ("promotion", "rollback")
DONE = {
    "promotion": "promoted",
    "rollback": "brought back",
    "rejection": "rejected",
    "refusal": "refused by the gate",
    "expiry": "not decided in time",
}


class Record(BaseModel):
    """One line of the ledger: what became of a version, by whom, when and why.

    ``champion_before`` and ``champion_after`` differ for promotions and rollbacks alone.
    ``decision``: key of the gate's. ``automatic``: no person decided. ``request``: what asked for
    it, so that asking again writes no second line. ``artifacts``: the version's keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    number: int
    event: Event
    version: int
    champion_before: int | None
    champion_after: int | None
    by: str
    automatic: bool
    reason: str
    at: str
    decision: str | None
    request: str
    artifacts: dict[str, str]
    token: str

    def in_words(self) -> str:
        """Return what happened, in a line."""
        return f"version {self.version} was {DONE[self.event]} by {self.by} at {self.at}"


@dataclass(frozen=True)
class Wish:
    """A record that somebody wants, before its place in the ledger is known."""

    event: Event
    version: int
    by: str
    reason: str
    request: str
    automatic: bool = False
    decision: str | None = None

    def __post_init__(self) -> None:
        for name in ("by", "reason"):
            if not getattr(self, name).strip():
                raise PedfracError(f"{self.event} of version {self.version}: {name} must be given")


def records_of(store: ArtifactStore, model: str) -> list[Record]:
    """Return all records of a registered model, the oldest first.

    Raises PedfracError where one was changed, or taken out so that later ones hang in the air.
    """
    return [record for record, _ in _chain(store, model)]


def champion_of(records: Sequence[Record]) -> int | None:
    """Return the version that the ledger says is the champion."""
    return records[-1].champion_after if records else None


def last_change(records: Sequence[Record]) -> Record | None:
    """Return the record that made the present champion."""
    return next((one for one in reversed(records) if one.event in CHANGES), None)


def promote(
    store: ArtifactStore, registry: Registry, decision: Decision, wish: Wish, version: Version
) -> Record:
    """Make a version the champion in one step; return its record.

    Raises PedfracError where the gate refused, or where the champion is no longer the one that the
    gate compared with: it then says who was faster.
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

    record = _append(store, registry.name, wish, version.tags, may)
    reconcile(store, registry)
    return record


def rollback(store: ArtifactStore, registry: Registry, wish: Wish) -> Record:
    """Make an earlier champion the champion again, in one step; return its record.

    Where the alias was moved by something else, the present champion may be brought back, too.
    Raises PedfracError where the version never was a champion, is it now, or is gone.
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
    bundle = earlier[wish.version].artifacts.get("bundle", "")
    if not bundle or not store.exists(bundle):
        raise PedfracError(f"version {wish.version}: its bundle {bundle} is gone from the store")

    def may(now: Sequence[Record]) -> None:
        faster = last_change(now)
        if champion_of(now) != before and faster is not None:
            raise PedfracError(
                f"version {wish.version} is not brought back: since then {faster.in_words()}"
            )

    record = _append(store, registry.name, wish, earlier[wish.version].artifacts, may)
    _image(registry, record)
    return record


def note(store: ArtifactStore, registry: Registry, wish: Wish) -> Record:
    """Write down a rejection, refusal or expiry; return the record that the request has then.

    It may be another's: where a version was approved in the last second, it did not expire.
    """
    version = next((one for one in registry.versions() if one.number == wish.version), None)
    record = _append(
        store, registry.name, wish, version.tags if version else {}, lambda records: None
    )
    reconcile(store, registry)
    return record


def found(store: ArtifactStore, registry: Registry, request: str) -> Record | None:
    """Return the record that a request has led to, if there is one."""
    return next((one for one in records_of(store, registry.name) if one.request == request), None)


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
    logger.warning("the alias %s follows record %d", CHAMPION, record.number)
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


def _chain(store: ArtifactStore, model: str) -> list[tuple[Record, Artifact]]:
    chain: list[tuple[Record, Artifact]] = []
    while store.exists(key := store.key(KIND, **_behind(chain, model))):
        artifact = store.get(key)
        try:
            record = Record.model_validate(artifact.read_json(RECORD))
        except ValidationError as error:
            raise PedfracError(f"{key}: is no record of the ledger ({error})") from None
        chain.append((record, artifact))
    known = {artifact.key for _, artifact in chain}
    own = {one.key for one in store.of_kind(KIND) if one.manifest.config == {"model": model}}
    loose = sorted(own - known)
    # a record may have been written since the chain was followed: then it hangs on the last
    if loose and not store.exists(store.key(KIND, **_behind(chain, model))):
        raise PedfracError(
            f"the ledger of promotions is broken: {', '.join(loose)} follow a record that is gone "
            "or was changed"
        )
    return chain


def _behind(chain: Sequence[tuple[Record, Artifact]], model: str) -> dict[str, Any]:
    """Return what the key of the next record is made of: the last one, and nothing of its own."""
    return {"config": {"model": model}, "parents": {"previous": chain[-1][1]} if chain else {}}


def _append(
    store: ArtifactStore,
    model: str,
    wish: Wish,
    artifacts: dict[str, str],
    may: Callable[[Sequence[Record]], None],
) -> Record:
    """Write a record behind the last one; where another is faster, look again whether it ``may``.

    Returns the record that the same request has led to already, if there is one.
    """
    while True:
        chain = _chain(store, model)
        records = [record for record, _ in chain]
        if same := next((one for one in records if one.request == wish.request), None):
            return same
        may(records)
        record = _record(wish, records, artifacts)

        def make(folder: Path, record: Record = record) -> None:
            write_json(folder / RECORD, record.model_dump(mode="json"))

        written = store.produce(KIND, make, **_behind(chain, model))
        if Record.model_validate(written.read_json(RECORD)).token == record.token:
            return record


def _record(wish: Wish, records: Sequence[Record], artifacts: dict[str, str]) -> Record:
    before = champion_of(records)
    return Record(
        number=len(records) + 1,
        event=wish.event,
        version=wish.version,
        champion_before=before,
        champion_after=wish.version if wish.event in CHANGES else before,
        by=wish.by,
        automatic=wish.automatic,
        reason=wish.reason,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        decision=wish.decision,
        request=wish.request,
        artifacts={
            name: key
            for name, key in artifacts.items()
            if key.count("/") == 1 and not name.startswith("gate")  # those of other versions, too
        },
        token=uuid.uuid4().hex,
    )
