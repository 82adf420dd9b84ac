"""Challenge: two versions' artifacts read for the gate, its decision kept, and what follows done.

It joins store, registry, gate and ledger; what these do stands in their own modules.
"""

from pathlib import Path
from typing import Any

from pedfrac.bundle.bundle import BundleInfo
from pedfrac.config.loading import read_json_as
from pedfrac.config.operator import load_operator
from pedfrac.config.promotion import GateConfig, PromoteConfig
from pedfrac.data import split as data_split
from pedfrac.errors import PedfracError
from pedfrac.evaluation import evaluation as evaluations
from pedfrac.explanation.metrics import GroupExplanation
from pedfrac.promotion import audit_log, gate, promotion
from pedfrac.promotion import decision as promotion_decision
from pedfrac.promotion.registry import CHALLENGER, Registry, Version
from pedfrac.storage.code_version import code_digest
from pedfrac.storage.files import write_json
from pedfrac.storage.manifest import Artifact
from pedfrac.storage.store import ArtifactStore

CODE = (
    *("age_groups", "bundle", "data.split", "evaluation", "promotion", "scoring", "statistics"),
)
DECISION, PAGE = "decision.json", "gate.html"
NEEDED = ("bundle", "evaluation", "explanation", "report", "split", "records")
LEARNED = ("train", "validation")
SPLIT = "split.csv"
GATE = "gate"  # the tag of a version that says where the gate's decision lies


def store_of(config: PromoteConfig) -> ArtifactStore:
    """Return the store that the configuration names."""
    return ArtifactStore(config.artifact_root)


def registry_of(config: PromoteConfig) -> Registry:
    """Return the registry that the configuration names."""
    return Registry.of(config.tracking, config.tracking_folder)


def find_challenger(config: PromoteConfig, version: int | None) -> Version:
    """Return a version by its number, or the one that holds the alias ``challenger``.

    Raises PedfracError where there is none, or where it is the champion already.
    """
    registry = registry_of(config)
    if version is not None:
        found = registry.version(version)
    elif (holder := registry.holder(CHALLENGER)) is not None:
        found = holder
    else:
        raise PedfracError(f"no version of {registry.name} is the challenger; name one")
    if found.number == find_champion_number(config):
        raise PedfracError(f"version {found.number} of {registry.name} is the champion already")
    return found


def find_champion_number(config: PromoteConfig) -> int | None:
    """Return the version that the ledger says is the champion, after mending its alias.

    Raises PedfracError where the champion was lost.
    """
    store, registry = store_of(config), registry_of(config)
    promotion.refuse_lost(store, registry)
    return audit_log.champion_of(audit_log.records_of(store, registry.name))


def pin_challenger(config: PromoteConfig, request: str, version: int | None) -> int:
    """Return the version that a request is about: the same one however often it is asked.

    A request that waits for a person begins again from the top when another retraining may have
    registered the next challenger.
    """
    made = store_of(config).produce(
        "promotion-request",
        lambda folder: write_json(folder / "request.json", find_challenger(config, version).number),
        sources={"request": request},
    )
    number: int = made.read_json("request.json")
    return number


def find_record(config: PromoteConfig, request: str) -> audit_log.Record | None:
    """Return the ledger's record that a request has led to, if there is one."""
    return audit_log.found(store_of(config), registry_of(config).name, request)


def compare(config: PromoteConfig, version: int) -> tuple[str, promotion_decision.Decision]:
    """Return the key and the content of the gate's decision of a version against the champion."""
    registry = registry_of(config)
    champion = find_champion_number(config)
    against = None if champion is None else registry.version(champion)
    key = ask_gate(config, registry.version(version), against)
    return key, read_decision(store_of(config), key)


def settle(
    config: PromoteConfig,
    decided: tuple[str, promotion_decision.Decision],
    approved: bool,
    by: str,
    reason: str,
    request: str,
    *,
    automatic: bool = False,
) -> audit_log.Record:
    """Promote or reject what the gate let through, and return the ledger's record.

    ``decided``: as ``compare`` returned it. Raises PedfracError as ``promotion.promote`` does, and
    where the bundle was replaced after the gate compared it.
    """
    key, decision = decided
    store, registry = store_of(config), registry_of(config)
    wish = audit_log.Wish(
        "promotion" if approved else "rejection",
        decision.challenger,
        by,
        reason,
        request,
        automatic,
        key,
        decision.changed,
    )
    if automatic and not decides_alone(config, decision):
        raise PedfracError(
            f"version {decision.challenger}: a person must decide, since the operator's file does "
            f"not say promotion.approval: automatic{'' if not decision.changed else ' for this'}"
        )
    if not approved:
        return promotion.note(store, registry, wish)
    version = registry.version(decision.challenger)
    _refuse_replaced(store, key, version)
    return promotion.promote(store, registry, decision, wish, version)


def _refuse_replaced(store: ArtifactStore, decision: str, version: Version) -> None:
    """Raise PedfracError where a version's bundle is not the one that the gate has compared."""
    compared = store.peek(decision).manifest.parents["challenger_bundle"]
    bundle = version.tags.get("bundle", "")
    if not store.exists(bundle) or store.peek(bundle).digest != compared.digest:
        raise PedfracError(
            f"version {version.number} is not promoted: its bundle {bundle} has changed since the "
            "gate compared it; run pedfrac promote again"
        )


def decides_alone(config: PromoteConfig, decision: promotion_decision.Decision) -> bool:
    """Return whether no person is asked: the operator's file says so, and no criterion differs."""
    says = {config.promotion.approval, load_operator().promotion.approval}
    return says == {"automatic"} and not decision.changed


def note_refusal(
    config: PromoteConfig, decided: tuple[str, promotion_decision.Decision]
) -> audit_log.Record:
    """Write down that the gate refused; the same decision is written down once."""
    key, decision = decided
    wish = audit_log.Wish(
        "refusal",
        decision.challenger,
        "the gate",
        decision.in_words(),
        key,
        True,
        key,
        decision.changed,
    )
    return promotion.note(store_of(config), registry_of(config), wish)


def note_expiry(config: PromoteConfig, request: str) -> audit_log.Record:
    """Write down that nobody decided in time; return what the request has led to instead, if so."""
    version = pin_challenger(config, request, None)
    wish = audit_log.Wish(
        "expiry", version, "the deadline", "nobody decided in time", request, True
    )
    return promotion.note(store_of(config), registry_of(config), wish)


def ask_gate(config: PromoteConfig, challenger: Version, champion: Version | None) -> str:
    """Compare two versions; return the key of the decision, which both versions' tags name.

    What is missing or does not verify is part of the key: once it is mended, the gate looks anew.
    """
    store, registry = store_of(config), registry_of(config)
    sides = {"challenger": challenger} | ({"champion": champion} if champion else {})
    found = {role: _Found.of(store, version) for role, version in sides.items()}
    parents = {
        f"{role}_{name}": artifact
        for role, one in found.items()
        for name, artifact in one.artifacts.items()
    }
    faults = {
        f"{role} {name}": fault for role, one in found.items() for name, fault in one.faults.items()
    }
    let_through, earlier = _earlier_criteria(store, registry)
    standard = load_operator().promotion.gate

    def make(folder: Path) -> None:
        from pedfrac.promotion.page import write_page  # matplotlib is slow to import

        models = {role: one.model() for role, one in found.items()}
        decision = gate.decide(
            models["challenger"], models.get("champion"), config.promotion.gate, earlier, standard
        )
        write_json(folder / DECISION, decision.model_dump(mode="json"))
        keys = {name.replace("_", " "): parent.key for name, parent in parents.items()}
        write_page(folder / PAGE, decision, keys)

    made = store.produce(
        GATE,
        make,
        config=config.promotion.gate.model_dump(mode="json"),
        sources=faults
        | {f"{role} version": str(version.number) for role, version in sides.items()}
        | {"code": code_digest(CODE), "criteria before": let_through}
        | {"operator's criteria": standard.model_dump_json()},
        parents=parents,
    )
    registry.set_tags(challenger.number, {GATE: made.key})
    if champion:
        registry.set_tags(champion.number, {f"{GATE}_of_{challenger.number}": made.key})
    return made.key


def _earlier_criteria(store: ArtifactStore, registry: Registry) -> tuple[str, GateConfig | None]:
    """Return the decision by which the champion was let through, and its criteria."""
    records = audit_log.records_of(store, registry.name)
    champion = audit_log.champion_of(records)
    promoted = [one for one in records if one.event == "promotion" and one.version == champion]
    key = promoted[-1].decision if promoted else None
    if key is None or not store.exists(key):
        return "", None
    return key, read_decision(store, key).config


def read_decision(store: ArtifactStore, key: str) -> promotion_decision.Decision:
    """Return a decision of the gate."""
    return promotion_decision.Decision.model_validate(store.get(key).read_json(DECISION))


class _Found:
    """A version's artifacts as far as they are there, and what is wrong with them."""

    def __init__(self, store: ArtifactStore, version: Version):
        self.store, self.version = store, version
        self.artifacts: dict[str, Artifact] = {}
        self.faults: dict[str, str] = {}

    @classmethod
    def of(cls, store: ArtifactStore, version: Version) -> "_Found":
        """Look for all that the gate needs of a version, and verify it."""
        found = cls(store, version)
        for name in NEEDED:
            found._look_for(name)
        found._check_origin()
        return found

    def _look_for(self, name: str) -> None:
        key = self.version.tags.get(name)
        if key is None:
            self.faults[name] = "is not named by the version"
        elif not self.store.exists(key):
            self.faults[name] = f"({key}) is missing"
        else:
            self.artifacts[name] = self.store.peek(key)
            if broken := self.store.verify(key):
                self.faults[name] = f"({key}) does not verify: {', '.join(sorted(broken)[:3])}"

    def _check_origin(self) -> None:
        """Note what was made from another bundle or split than the version's."""
        pairs = (("evaluation", "bundle"), ("explanation", "bundle"), ("report", "bundle"))
        for name, parent in (*pairs, ("bundle", "split"), ("evaluation", "split")):
            own, source = self.artifacts.get(name), self.artifacts.get(parent)
            if own is None or source is None or name in self.faults:
                continue
            made_from = own.manifest.parents.get(parent)
            if made_from is None or made_from.digest != source.digest:
                self.faults[name] = f"({own.key}) was made from another {parent}"

    def model(self) -> promotion_decision.Model:
        """Return the version as the gate sees it."""
        evaluation = self._whole("evaluation")
        return promotion_decision.Model(
            version=self.version.number,
            images=evaluations.load_predictions(evaluation.path) if evaluation else None,
            metrics=evaluations.load_metrics(evaluation.path) if evaluation else None,
            explanation=self._explanation(),
            learned=self._learned(),
            shared=self._shared(),
            settings=self._settings(),
            faults=self.faults,
            verified=tuple(name for name in self.artifacts if name not in self.faults),
        )

    def _whole(self, name: str) -> Artifact | None:
        return None if name in self.faults else self.artifacts.get(name)

    def _explanation(self) -> dict[str, GroupExplanation] | None:
        artifact = self._whole("explanation")
        if artifact is None:
            return None
        files = [name for name in artifact.manifest.files if name.endswith("/metrics.json")]
        return {
            name.partition("/")[0]: read_json_as(artifact.file(name), GroupExplanation)
            for name in files
        }

    def _models(self) -> dict[str, Artifact]:
        """Return the networks that went into the bundle, and those that these started from."""
        bundle = self._whole("bundle")
        parents = bundle.manifest.parents if bundle else {}
        waiting = {name: one.key for name, one in parents.items() if _is_network(name)}
        found: dict[str, Artifact] = {}
        while waiting:
            name, key = waiting.popitem()
            if not self.store.exists(key):
                continue
            found[name] = self.store.peek(key)
            start = found[name].manifest.parents.get("start")
            if start and f"start of {name}" not in found:
                waiting[f"start of {name}"] = start.key
        return found

    def _learned(self) -> frozenset[int] | None:
        """Return the patients of every split by which any network of the bundle learned.

        None where a network or its split is gone: nobody knows then.
        """
        bundle = self._whole("bundle")
        if bundle is None:
            return None
        models = self._models()
        networks = [name for name in bundle.manifest.parents if _is_network(name)]
        if any(name not in models for name in networks):
            return None
        keys = {one.manifest.parents["split"].key for one in (bundle, *models.values())}
        if any(self.store.find(key) is None for key in keys):
            return None
        files = [self.store.get(key).file(SPLIT) for key in sorted(keys)]
        tables = [data_split.read_split_table(file) for file in files]
        return frozenset(
            patient
            for table in tables
            for patient in table["patient_id"][table["part"].isin(LEARNED)].tolist()
        )

    def _shared(self) -> int | None:
        """Return how many patients two parts share, counted again; None without the split."""
        split = self._whole("split")
        if split is None:
            return None
        table = data_split.read_split_table(split.file(SPLIT))
        places = table[table["part"].isin(data_split.PLACES)].groupby("patient_id")["part"]
        return int((places.nunique() > 1).sum())

    def _settings(self) -> dict[str, Any]:
        """Return how the version was made, by what may change."""
        settings: dict[str, Any] = {}
        if bundle := self._whole("bundle"):
            settings |= _of_bundle(bundle)
            models = {n: m for n, m in self._models().items() if not n.startswith("start ")}
            own = {name: one.manifest.config["training"] for name, one in models.items()}
            settings["training"] = own
        if split := self._whole("split"):
            settings["split rules"] = _without_bounds(split.manifest.config)
            cohort = split.manifest.parents["cohort"].key
            if self.store.exists(cohort):
                settings["cohort"] = _without_bounds(self.store.peek(cohort).manifest.config)
        if records := self._whole("records"):
            settings["data"] = records.manifest.config | {"fingerprint": records.digest[:12]}
        return settings


def _is_network(name: str) -> bool:
    return name in ("age", "generalist") or name.startswith("specialist-")


def _of_bundle(bundle: Artifact) -> dict[str, Any]:
    info = BundleInfo.model_validate(bundle.read_json("bundle.json"))
    networks = {"fracture": info.fracture, "age": info.age}
    return {
        "age bounds": list(info.age_bounds),
        "classes": {"age head": info.age_head, "age groups": info.ages.names},
        "preparation": {n: one.preparation.model_dump() for n, one in networks.items()},
        "network": {n: one.model.model_dump(mode="json") for n, one in networks.items()},
        "operating points": bundle.manifest.config.get("scoring", {}),
        "code": bundle.manifest.sources.get("code", "")[:12],
    }


def _without_bounds(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "age_bounds"}
