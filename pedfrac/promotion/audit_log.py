"""Ledger: which version of a model is the champion, who decided it, when and why, for good.

Each record is an artifact whose key follows from the record before it alone, so that of two writers
one wins and nothing can be slipped in between. Not here: the registry, whose alias is the ledger's
image, and what may be promoted (promotion).
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pedfrac.errors import PedfracError
from pedfrac.storage.files import write_json
from pedfrac.storage.manifest import Artifact
from pedfrac.storage.store import ArtifactStore

KIND, RECORD = "promotion", "record.json"
CHAMPION = "champion"
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
    ``criteria_changed``: criteria of the gate that differed from the operator's.
    ``bundle_digest``: the champion's bundle as it was then (see ``bundle_digest``); none in what
    changes no champion, and in records of before digests were kept.
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
    criteria_changed: tuple[str, ...] = ()
    bundle_digest: str | None = None

    def in_words(self) -> str:
        """Return what happened, in a line."""
        how = DONE[self.event]
        how = how if self.by in how else f"{how} by {self.by}"
        changed = "; ".join(self.criteria_changed)
        differing = f" (criteria differ from the operator's: {changed})" if changed else ""
        return f"version {self.version} was {how} at {self.at}{differing}"


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
    criteria_changed: tuple[str, ...] = ()

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


def found(store: ArtifactStore, model: str, request: str) -> Record | None:
    """Return the record that a request has led to, if there is one."""
    return next((one for one in records_of(store, model) if one.request == request), None)


def append(
    store: ArtifactStore,
    model: str,
    wish: Wish,
    artifacts: dict[str, str],
    may: Callable[[Sequence[Record]], None],
    bundle_digest: str | None = None,
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
        record = _record(wish, records, artifacts, bundle_digest)

        def make(folder: Path, record: Record = record) -> None:
            write_json(folder / RECORD, record.model_dump(mode="json"))

        written = store.produce(KIND, make, **_behind(chain, model))
        if Record.model_validate(written.read_json(RECORD)).token == record.token:
            return record


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


def _record(
    wish: Wish, records: Sequence[Record], artifacts: dict[str, str], bundle_digest: str | None
) -> Record:
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
        criteria_changed=wish.criteria_changed,
        bundle_digest=bundle_digest,
    )
