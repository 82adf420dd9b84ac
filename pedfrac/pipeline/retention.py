"""Which artifacts are kept and which go: those that no kept retraining, name or rule needs.

A plan is made and looked at before it is carried out. Artifacts go manifest first, so that one
that is half gone does not exist.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pedfrac.errors import PedfracError
from pedfrac.promotion.audit_log import CHANGES, RECORD
from pedfrac.promotion.audit_log import KIND as PROMOTION
from pedfrac.storage.lineage import Lineage
from pedfrac.storage.manifest import Leftover, Manifest
from pedfrac.storage.store import ArtifactStore

# a writer may still be at work on younger files that no manifest names yet
LEAST_AGE_OF_LEFTOVERS = timedelta(days=1)
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


@dataclass(frozen=True)
class Rules:
    """What is kept besides what it needs in turn."""

    runs: int
    older_than: timedelta
    named: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise PedfracError(f"--keep-runs {self.runs}: at least 1 retraining must be kept")


@dataclass(frozen=True)
class Plan:
    """What is kept, each with its reason, and what goes."""

    kept: dict[str, str]
    removed: list[Manifest]
    leftovers: list[Leftover]

    @property
    def bytes_freed(self) -> int:
        """Bytes of all that goes; a file that a kept pack shares is counted, and stays with it."""
        return sum(map(size_of, self.removed)) + sum(one.size for one in self.leftovers)


def plan_removal(store: ArtifactStore, rules: Rules, now: datetime) -> Plan:
    """Return what is to go from a store by some rules; nothing is changed.

    Kept are the newest retrainings (their reports), what is named, what is young, every split,
    since a later one takes its test set over, each version that is or was the champion, and all
    that these were made from; and the audit trail of promotions with the gate's decisions.
    """
    lineage = Lineage.of(store)
    kept = {lineage.key(name): "named" for name in rules.named}
    records = {one.key: one.read_json(RECORD) for one in store.of_kind(PROMOTION)}
    kept |= dict.fromkeys(records, "audit trail of promotions")
    for record in records.values():
        if record["event"] in CHANGES:
            own = {*record["artifacts"].values(), record["decision"]} & lineage.manifests.keys()
            kept |= dict.fromkeys(own, f"version {record['version']} is or was the champion")
    reports = [key for key, manifest in lineage.manifests.items() if manifest.kind == "report"]
    for number, key in enumerate(reports[: rules.runs], start=1):
        kept.setdefault(key, f"retraining {number} from the last")
    for key, manifest in lineage.manifests.items():
        if now - datetime.fromisoformat(manifest.created) < rules.older_than:
            kept.setdefault(key, "young")
        elif manifest.kind == "split":
            kept.setdefault(key, "a later split takes over its test set")
    for key in lineage.ancestors(list(kept)):
        kept.setdefault(key, "needed by another")
    for record in records.values():  # what it compared may go: it says what it found
        if record["decision"] in lineage.manifests:
            kept.setdefault(record["decision"], "decision in the audit trail of promotions")
    for key, manifest in lineage.manifests.items():
        if manifest.kind == "retraining" and _report_of(store, key) in kept:
            kept.setdefault(key, "its report is kept")
    removed = [manifest for key, manifest in lineage.manifests.items() if key not in kept]
    return Plan(kept, removed, store.leftovers(now - _age_of_leftovers(rules)))


def carry_out(store: ArtifactStore, plan: Plan) -> None:
    """Remove what a plan lists. It can be interrupted at any point and repeated."""
    for manifest in _children_first(plan.removed):
        store.remove(manifest)
    store.remove_leftovers(plan.leftovers)


def parse_age(text: str) -> timedelta:
    """Return a time such as ``30d``, ``12h`` or ``5m``. Raises PedfracError on anything else."""
    found = re.fullmatch(r"(\d+)([dhm])", text)
    if found is None:
        raise PedfracError(f"--older-than {text}: must look like 30d, 12h or 5m")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def size_of(manifest: Manifest) -> int:
    """Return the bytes of an artifact's files."""
    return sum(entry.size for entry in manifest.files.values())


def _children_first(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Order artifacts so that none is ever there without what it was made from."""
    lineage = Lineage(manifests)
    return sorted(manifests, key=lambda one: len(lineage.ancestors([one.key])), reverse=True)


def _report_of(store: ArtifactStore, key: str) -> str:
    return str(store.get(key).read_json("retraining.json").get("report_key"))


def _age_of_leftovers(rules: Rules) -> timedelta:
    return max(rules.older_than, LEAST_AGE_OF_LEFTOVERS)
