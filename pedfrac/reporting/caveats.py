"""Cautions: what in a run's findings a reader must know before believing its metrics.

Not here: the metrics themselves (findings) and how they are shown (report).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pedfrac.reporting.format import metric, plural
from pedfrac.statistics.words import interval_in_words, number_in_words

Metrics = Mapping[str, Any]
FEW_PATIENTS = 30  # fewer leave an interval too wide to act upon


class Caution(NamedTuple):
    """A sentence, and the section of the report that tells more."""

    text: str
    section: str


def find_cautions(findings: Metrics, called: Callable[[str], str]) -> list[Caution]:
    """Return what must be said first, gravest first; ``called`` puts names into words."""
    if not findings["groups"] or not findings["groups"][0]["images"]:
        return [
            Caution("The test set holds no image: nothing here says how well it works.", "split")
        ]
    ages = [group["name"] for group in findings["cohort"]["groups"]]
    explanation = {
        name: findings["explanation"][name] for name in ages if name in findings["explanation"]
    }
    return [
        *_shared_patients(findings),
        *_no_better_than_metadata(findings, called),
        *_shortcut(findings["shortcuts"]),
        *_missed_target(findings),
        *_differing_subgroups(findings, called),
        *_calibration(findings),
        *_few_patients(findings, called),
        *_heat_maps(explanation, called),
        *_blind_to_weights(explanation, called),
        *_specialists(findings),
    ]


def _shared_patients(findings: Metrics) -> Iterator[Caution]:
    shared = sum(findings["split"].get("disjoint", {}).get("shared", {}).values())
    if shared:
        verb = "is" if shared == 1 else "are"
        text = f"{plural(shared, 'patient')} {verb} in more than one part of the split."
        yield Caution(text, "split")


def _no_better_than_metadata(findings: Metrics, called: Callable[[str], str]) -> Iterator[Caution]:
    """Name the images on which the bundle is not shown to have a larger area than metadata."""
    rows = [findings["groups"][0], *findings["subsets"][:3]]
    short = [
        "all test images" if row["name"] == "all" else called(row["name"])
        for row in rows
        if row["images"] and not above_metadata(row)
    ]
    if short:
        yield Caution(
            "Not shown to tell more than age, sex and the circumstances of the exam do without "
            f"the image: {'; '.join(short)}.",
            "results",
        )


def above_metadata(row: Metrics) -> bool:
    """Whether the bundle's AUROC on a row's images is shown to exceed that of metadata alone."""
    lows = [gain["low"] for gain in row["above_baselines"].values()]
    return all(low is not None and low > 0 for low in lows)


def _shortcut(shortcuts: Metrics | None) -> Iterator[Caution]:
    """Name the images without bones of which the network tells more than chance."""
    seen = [
        f"{name}, AUROC {interval_in_words(part['auroc'])}"
        for name, part in sorted((shortcuts or {}).items())
        if isinstance(part, Mapping) and part.get("verdict") == "suspected"
    ]
    if seen:
        yield Caution(f"A shortcut is suspected: fractures told from {'; '.join(seen)}.", "beyond")


def _missed_target(findings: Metrics) -> Iterator[Caution]:
    target = findings["operating"]["sensitivity_target"]
    for row in findings["groups"][:1] if target else []:
        high = row["models"].get("bundle", {}).get("sensitivity", {}).get("high")
        if high is not None and high < target:
            yield Caution(f"The sensitivity of {target:g} that was asked for is missed.", "results")


def _differing_subgroups(findings: Metrics, called: Callable[[str], str]) -> Iterator[Caution]:
    differing = [
        f"{called(one['name'])}: {metric(name)} {number_in_words(found['value'])} against "
        f"{number_in_words(found['against']['others'])}"
        for one in findings["subgroups"]["subgroups"]
        for name, found in sorted(one["metrics"].items())
        if found["differs"]
    ]
    if differing:
        more = f", and {len(differing) - 6} more" if len(differing) > 6 else ""
        yield Caution(
            f"Differs between subgroups beyond chance: {'; '.join(differing[:6])}{more}.",
            "subgroups",
        )


def _calibration(findings: Metrics) -> Iterator[Caution]:
    whole = next((one for one in findings["calibration"]["groups"] if one["name"] == "all"), None)
    if whole is None:
        return
    after, off = whole["after"], []
    for name, right in (("slope", 1), ("intercept", 0)):
        low, high = after[name]["low"], after[name]["high"]
        if low is not None and not low <= right <= high:
            off.append(f"{name} {number_in_words(after[name]['value'])} instead of {right}")
    if (after["ece"]["low"] or 0) > 0:
        off.append("expected calibration error above what chance makes")
    if off:
        yield Caution(f"Probabilities are off on the test images: {'; '.join(off)}.", "calibration")


def _few_patients(findings: Metrics, called: Callable[[str], str]) -> Iterator[Caution]:
    rows = [*findings["groups"], *findings["subsets"]]
    few = [
        f"{called(row['name'])} ({row['patients']})"
        for row in rows
        if row["patients"] < FEW_PATIENTS
    ]
    if few:
        yield Caution(
            f"Fewer than {FEW_PATIENTS} test patients, so read the interval and not the value: "
            f"{'; '.join(few)}.",
            "results",
        )


def _heat_maps(explanation: Metrics, called: Callable[[str], str]) -> Iterator[Caution]:
    """Name the age groups whose hottest points meet no more fractures than one that is blind."""
    blind = [name for name, part in explanation.items() if not _beats_the_blind(part)]
    if blind:
        yield Caution(
            "Heat maps are not shown to point at fractures better than a guess that does not look: "
            f"{'; '.join(map(called, blind))}.",
            "pictures",
        )


def _beats_the_blind(part: Metrics) -> bool:
    """Whether the heat that is drawn points better than chance and a map of images' middles."""
    drawn = (part.get("methods") or {}).get(part.get("method")) or {}
    pointing = (drawn.get("localisation") or {}).get("pointing")
    if pointing:
        return all(pointing.get(f"beats_{other}") is True for other in ("centre_prior", "chance"))
    low, chance = (part.get("pointing") or {}).get("low"), part.get("chance")
    return low is not None and chance is not None and low > chance


def _blind_to_weights(explanation: Metrics, called: Callable[[str], str]) -> Iterator[Caution]:
    """Name the age groups whose heat maps stay the same when the network forgets all it learnt."""
    same = [
        f"{called(name)} ({method})"
        for name, part in explanation.items()
        for method, one in sorted((part.get("methods") or {}).items())
        if (one.get("random_weights") or {}).get("changes") is False
    ]
    if same:
        text = f"Heat maps hardly change under random weights, so tell little: {'; '.join(same)}."
        yield Caution(text, "pictures")


def _specialists(findings: Metrics) -> Iterator[Caution]:
    gain = findings["groups"][0]["differences"].get("bundle less generalist", {}).get("auroc")
    if gain and gain["low"] is not None and gain["low"] <= 0:
        told = "does worse" if gain["high"] < 0 else "is not shown to do better"
        yield Caution(f"The bundle {told} than one network for all ages.", "choice")
