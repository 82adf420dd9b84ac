"""Report: one self-contained page per retraining, for clinician-readers and researchers.

It is made from the findings (metrics.json) and the heat maps, and nothing else. Not here: any
metric is computed elsewhere (evaluation, explanation); this only shows it.
"""

import base64
import hashlib
import json
import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pedfrac.reporting import plots
from pedfrac.reporting.caveats import FEW_PATIENTS, find_cautions
from pedfrac.reporting.explanation_tables import explained_tables
from pedfrac.reporting.format import FILTERS, called
from pedfrac.reporting.montages import fit_montages
from pedfrac.reporting.tables import facts_of, is_interval, notes_of, tables_of

TEMPLATE, LOOKS, SCRIPT = "report.html.j2", "report.css", "report.js"
MODELS = ("bundle", "specialist", "generalist", "bundle by seen age")
HEAD_SUBSETS = ("no cast", "initial exam", "no cast, initial exam")
ROUTES = ("recorded age", "predicted age", "soft")
SPECIFICITIES = (0.8, 0.9, 0.95, 0.99)
EXTRAS = {
    "robustness": "metrics on disturbed images",
    "shortcuts": "metrics on images without bones",
    "folds": "metrics of folds held out in turn",
    "published": "metrics of others",
}
MISSING = {"value": None, "low": None, "high": None}
Findings = Mapping[str, Any]


def write_report(path: Path, findings: dict[str, Any], montages: Mapping[str, Path]) -> None:
    """Write the page; it needs no network and no other file, and is whole without its script.

    ``findings``: content of metrics.json as ``pedfrac.reporting.schema`` has it. ``montages``: PNG
    files by age group. Equal input, equal bytes.
    Raises PedfracError that names a montage which cannot be read.
    """
    # as a file holds it, so that a page made again from metrics.json is the same
    findings = json.loads(json.dumps(findings, sort_keys=True))
    page = page_environment().get_template(TEMPLATE).render(_context(findings, montages)).lstrip()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def page_environment() -> Environment:
    """Return what renders a page of this folder: its filters, tests and what is called in it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS | {
        "unbroken": _unbroken,
        "no_image": lambda name: f"No image: {name}",
        "opposite": _opposite,
    }
    environment.tests |= {
        "interval": is_interval,
        "difference": lambda column: bool(re.search(r"\b(change|less|gain)\b", column.lower())),
    }
    environment.globals |= {"new_notes": Notes, "few_patients": FEW_PATIENTS}
    return environment


def _context(findings: Findings, montages: Mapping[str, Path]) -> dict[str, Any]:
    names = [group["name"] for group in findings["cohort"]["groups"]]
    whole = findings["groups"][0]
    script = beside(SCRIPT)
    return {
        "f": findings,
        "names": names,
        "models": MODELS,
        "whole": whole,
        "head": [whole, *(row for row in findings["subsets"] if row["name"] in HEAD_SUBSETS)],
        "cautions": find_cautions(findings, called),
        "routes": [name for name in ROUTES if name in findings["routing"]["routes"]],
        "trainings": _in_order(findings["training"], ["age", "generalist", *names]),
        "curve_points": {
            name: _sensitivities(curve["roc"]) for name, curve in sorted(findings["curves"].items())
        },
        "explained": explained_tables(_in_order(findings["explanation"], names), called),
        "notes_on_heat": notes_of(findings["explanation"]),
        "beyond": _beyond(findings),
        "published": _published(findings),
        "fold_facts": facts_of(findings["folds"] or {}),
        "lacking": [words for name, words in EXTRAS.items() if not findings[name]],
        "specificities": [f"at {specificity:g}" for specificity in SPECIFICITIES],
        "pictures": _pictures(findings, whole, names),
        "montages": _in_order(fit_montages(montages), names),
        "config": yaml.safe_dump(findings["config"], sort_keys=False, allow_unicode=True),
        "looks": Markup(beside(LOOKS)),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def beside(name: str) -> str:
    """Return the text of a file that lies beside this module."""
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _in_order(parts: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """Return parts in the order of names, then any others: files of JSON are sorted by key."""
    order = [*(name for name in names if name in parts), *sorted(set(parts) - set(names))]
    return {name: parts[name] for name in order}


def _pictures(findings: Findings, whole: Findings, names: list[str]) -> dict[str, Any]:
    draw, by_name = plots.draw, {one["name"]: one for one in findings["calibration"]["groups"]}
    fitted = by_name.get("all", {"before": {"curve": []}, "after": {"curve": []}})
    prevalence = whole["fractured"] / whole["images"] if whole["images"] else 0
    subgroups = findings["subgroups"]["subgroups"]
    bundle = whole["models"].get("bundle", {})
    return {
        "groups": draw(plots.areas, findings["groups"], called),
        "subsets": draw(plots.areas, [whole, *findings["subsets"]], called),
        "roc": draw(plots.roc, findings["curves"], whole["models"]),
        "pr": draw(plots.precision_recall, findings["curves"], prevalence),
        "reliability": draw(plots.reliability, fitted["before"]["curve"], fitted["after"]["curve"]),
        "decision": draw(plots.decision, findings["decision"]),
        "subgroups": {
            name: draw(plots.subgroups, subgroups, name, bundle.get(name, MISSING), called)
            for name in ("sensitivity", "specificity")
        },
        "cohort": draw(plots.cohort, findings["cohort"]["groups"], called),
        "training": {
            name: draw(plots.training, one["history"], one["summary"].get("monitor"))
            for name, one in _in_order(findings["training"], ["age", "generalist", *names]).items()
        },
    }


def _sensitivities(roc: Findings) -> list[dict[str, Any]]:
    """Return what the curve reaches at some specificities, as intervals."""
    if not roc["fpr"]:
        return []
    rows = []
    for specificity in SPECIFICITIES:
        place = min(range(len(roc["fpr"])), key=lambda at: abs(1 - roc["fpr"][at] - specificity))
        bounds = {end: roc[end][place] if roc[end] else None for end in ("low", "high")}
        rows.append({"value": roc["tpr"][place], **bounds, "reason": "no band could be drawn"})
    return rows


def _beyond(findings: Findings) -> list[dict[str, Any]]:
    """Return tables and notes of what else was asked of the bundle."""
    asked = (
        ("Disturbed images", findings["robustness"]),
        ("Images without bones: shortcuts", findings["shortcuts"]),
    )
    return [
        {
            "title": title,
            "facts": facts_of(block),
            "tables": tables_of(title, block),
            "notes": notes_of(block),
        }
        for title, block in asked
        if block
    ]


def _published(findings: Findings) -> dict[str, Any] | None:
    """Return the metrics of others, each with this run's that means the same, and their sources."""
    if not findings["published"]:
        return None
    sources: dict[str, dict[str, Any]] = {}
    rows = []
    for one in findings["published"]:
        name = str(one.get("protocol") or one.get("name") or one.get("source") or "–")
        texts = [str(one[key]) for key in ("task", "population", "split_note") if one.get(key)]
        url = str(one.get("url") or "")
        known = {"name": name, "source": one.get("source") or name}
        known |= {"url": url if url.startswith(("https://", "http://")) else None}
        sources.setdefault(name, known | {"texts": texts})
        of = [str(one[key]) for key in ("of", "measured_on") if one.get(key)]
        rows.append(
            {
                "name": name,
                "metric": one.get("metric") or "–",
                "value": {key: one.get(key) for key in MISSING} | {"reason": "the source has none"},
                "ours": _counterpart(findings, one.get("counterpart")),
                "split": one.get("split") or "not stated",
                "of": ", ".join(of) or "not stated",
                "note": one.get("note") or "",
            }
        )
    return {"metrics": rows, "sources": list(sources.values())}


def _counterpart(findings: Findings, name: str | None) -> Any:
    """Return the bundle's metric of a name such as ``images.auroc``."""
    level, _, metric = (name or "").partition(".")
    rows = findings["studies"]["groups"] if level == "studies" else findings["groups"]
    return rows[0]["models"].get("bundle", {}).get(metric) if rows else None


@dataclass
class Notes:
    """Reasons for what is missing in one table, each marked by a letter and told once below it."""

    reasons: list[str] = field(default_factory=list)

    def mark(self, reason: str) -> str:
        """Return the letter of a reason."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        place = self.reasons.index(reason)
        letters = string.ascii_lowercase
        return letters[place] if place < len(letters) else str(place + 1)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((self.mark(reason), reason) for reason in self.reasons)


def _unbroken(text: str) -> Markup:
    """Return a text in which no line ends within an interval of ages."""
    ages = r"[\d.]+–[\d.]+\N{NO-BREAK SPACE}years"
    return Markup(re.sub(ages, r'<span class="nb">\g<0></span>', str(escape(text))))


def _opposite(step: str) -> str:
    """Return the images that a step leaves out: with metal, where it keeps those without."""
    if step.startswith("without "):
        return step.removeprefix("without ")
    first, _, rest = step.partition(" ")
    return f"{first} not {rest}"
