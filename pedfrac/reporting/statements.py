"""Statements: what metrics.json says of a run, in sentences and tables for pages in Markdown.

Model card and checklist share them. Not here: any metric, and whatever a run does not tell.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pedfrac.evaluation.rows import ALL
from pedfrac.reporting.caveats import FEW_PATIENTS, above_metadata
from pedfrac.reporting.format import FILTERS, listed

TEMPLATE = "statements.md.j2"
SHOWN = 0.5  # a rate whose interval reaches down to this is not shown to beat a coin

# What tells the published data set: its counts of rows, patients, studies and fractured images.
GRAZPEDWRI = {"usable": 20327, "patients": 6091, "studies": 10699, "fractured": 13550}
Found = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """What follows from findings (metrics.json, as a dict) that the pages ask for by name."""

    findings: Found

    @cached_property
    def whole(self) -> Found:
        """The row of all test images."""
        return next(row for row in self.findings["groups"] if row["group"] == ALL)

    @property
    def groups(self) -> list[Found]:
        """The rows of the age groups."""
        return [row for row in self.findings["groups"] if row["group"] != ALL]

    @property
    def is_grazpedwri(self) -> bool:
        """Whether what was read has the counts of GRAZPEDWRI-DX."""
        return all(self.findings["records"][name] == n for name, n in GRAZPEDWRI.items())

    @property
    def small_tests(self) -> list[Found]:
        """Age groups with few patients in the test set."""
        return [row for row in self.groups if row["patients"] < FEW_PATIENTS]

    @property
    def small_trainings(self) -> list[Found]:
        """Age groups with few patients to learn from."""
        parts = self.findings["split"]["groups"]
        return [part for part in parts if part["train"]["patients"] < FEW_PATIENTS]

    @property
    def poor(self) -> list[tuple[Found, list[str]]]:
        """Age groups and subsets with the rates of the bundle that are not shown to beat a coin."""
        rows = [*self.groups, *self.findings["subsets"]]
        found = [(row, self._unshown(row["models"]["bundle"])) for row in rows if row["images"]]
        return [(row, rates) for row, rates in found if rates]

    @property
    def no_better_than_metadata(self) -> list[tuple[Found, str]]:
        """Rows whose AUROC is not shown to beat metadata's, and the baseline that is nearest."""
        rows = [*self.findings["groups"], *self.findings["subsets"]]
        return [
            (row, name)
            for row in rows
            if row["images"]
            and not above_metadata(row)
            and (name := _best(row["baselines"])) is not None
        ]

    @property
    def differing(self) -> list[tuple[Found, str, Found]]:
        """Subgroups, names and values of metrics that differ from the others beyond chance."""
        return [one for one in self._compared() if one[2]["differs"]]

    @property
    def not_compared(self) -> int:
        """How many metrics of subgroups with images rest on too few patients to be compared."""
        return sum(metric["against"] is None for _, _, metric in self._compared())

    @property
    def miscalibrated(self) -> list[tuple[str, list[tuple[str, Found]]]]:
        """Groups whose calibrated probabilities are shown to be off, and by which metrics."""
        right = {"observed_expected": 1, "intercept": 0, "slope": 1}
        found = []
        for group in self.findings["calibration"]["groups"]:
            metrics = [(name, group["after"][name], ideal) for name, ideal in right.items()]
            off = [(name, metric) for name, metric, ideal in metrics if _excludes(metric, ideal)]
            found.append((group["name"], off))
        return [(name, off) for name, off in found if off]

    @property
    def chosen(self) -> dict[str, list[str]]:
        """The names of the age groups by the network that scores them."""
        by_choice: dict[str, list[str]] = {"specialist": [], "average": [], "generalist": []}
        for one in self.findings["selection"]:
            by_choice[one["choice"]].append(one["name"])
        return {choice: names for choice, names in by_choice.items() if names}

    @property
    def trained(self) -> list[tuple[str, Found]]:
        """The trainings by name: generalist, age groups from the youngest, and the others."""
        trained = self.findings["training"]
        ages = [group["name"] for group in self.findings["cohort"]["groups"]]
        names = ["generalist", *ages]
        order = [*(n for n in names if n in trained), *(n for n in trained if n not in names)]
        return [(name, trained[name]) for name in order]

    @property
    def manufacturers(self) -> list[Found]:
        """The subgroups by manufacturer, where there are images of several."""
        kinds = self.findings["subgroups"]["subgroups"]
        found = [one for one in kinds if one["attribute"] == "manufacturer" and one["images"]]
        return found if len(found) > 1 else []

    @property
    def explained(self) -> list[Found]:
        """The heat maps' metrics of each age group, youngest first."""
        made = self.findings["explanation"]
        names = [group["name"] for group in self.findings["cohort"]["groups"]]
        return [made[name] for name in names if name in made]

    def _unshown(self, model: Found) -> list[str]:
        rates = ("sensitivity", "specificity")
        return [name for name in rates if model[name]["low"] is None or model[name]["low"] <= SHOWN]

    def _compared(self) -> Iterator[tuple[Found, str, Found]]:
        for subgroup in self.findings["subgroups"]["subgroups"]:
            if subgroup["images"]:
                for name, metric in subgroup["metrics"].items():
                    yield subgroup, name, metric


def environment(findings: Found) -> Environment:
    """Return the templates' environment: ``f`` findings, ``facts`` of them, ``say`` statements.

    A name that the findings do not have is an error, never an empty place.
    """
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown: what could be mistaken for it goes through ``cell``
    )
    made.filters |= {name: _in_cell(written) for name, written in FILTERS.items()}
    made.filters |= {"listed": listed, "cell": _cell}  # what is listed went through a filter before
    made.globals |= {"f": findings, "config": findings["config"], "facts": Facts(findings)}
    made.globals |= {"FEW": FEW_PATIENTS, "SHOWN": SHOWN}
    made.globals["say"] = made.get_template(TEMPLATE).module
    return made


def _best(baselines: Found) -> str | None:
    known = {name: area["value"] for name, area in baselines.items() if area["value"] is not None}
    return max(known, key=lambda name: known[name]) if known else None


def _excludes(interval: Found, value: float) -> bool:
    low, high = interval["low"], interval["high"]
    return low is not None and not low <= value <= high


def _in_cell(written: Callable[..., str]) -> Callable[..., str]:
    return lambda *given, **settings: _cell(written(*given, **settings))


def _cell(text: object) -> str:
    """Return text that stays within a cell of a table and starts no markup of its own."""
    line = " ".join(str(text).split())
    for sign in "\\`*_[]<|":
        line = line.replace(sign, f"\\{sign}")
    return line
