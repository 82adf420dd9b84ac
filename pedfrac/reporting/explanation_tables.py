"""Explained: what heat maps were measured by, as tables that compare age groups and methods.

Not here: the measures (localisation, random weights, faithfulness) and any layout.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pedfrac.reporting.format import listed, metric, yes_no
from pedfrac.reporting.tables import Table, table_of

Metrics = Mapping[str, Any]
COUNTS = ("images", "with_boxes", "networks", "pointing", "mass", "chance")
SHOWN_ELSEWHERE = ("group", "note", "pictures", "verdicts", "method", "methods", "boxes")
MEASURES = ("pointing", "energy", "iou")


def explained_tables(explanation: Metrics, called: Callable[[str], str]) -> list[Table]:
    """Return the tables of ``explanation`` by age group, in whose order rows stand.

    First what stands in short for each group; then, where known, each method beside the centre
    prior and chance, under random weights, and what removing the hottest or coldest pixels does.
    """
    short = [
        {"age group": called(name)}
        | {key: value for key, value in part.items() if key not in SHOWN_ELSEWHERE}
        for name, part in explanation.items()
    ]
    methods = [
        (called(name), method, one)
        for name, part in explanation.items()
        for method, one in _drawn_first(part)
    ]
    made = (
        ("Do the heat maps point at the fracture?", short, ("age group", *COUNTS)),
        (
            "Fractures found by the network's own boxes",
            _detected(explanation, called),
            ("age group",),
        ),
        ("Heat maps beside a map of images' middles and chance", _localised(methods), KEYS),
        (
            "Similarity to the map of a network without its weights, by layer (1: the same)",
            [_forgotten(*one) for one in methods if one[2].get("random_weights")],
            KEYS,
        ),
        (
            "Change of probability as the hottest (low: good) or coldest (high: good) pixels are "
            "removed; combined: half their difference (high: good)",
            _faithful(methods),
            KEYS,
        ),
    )
    return [table_of(caption, rows, first) for caption, rows, first in made if rows]


KEYS = ("age group", "method", "metric")


def _drawn_first(part: Metrics) -> list[tuple[str, Metrics]]:
    methods = part.get("methods") or {}
    return sorted(methods.items(), key=lambda one: (one[0] != part.get("method"), one[0]))


def _detected(explanation: Metrics, called: Callable[[str], str]) -> list[dict[str, Any]]:
    """Return, by age group, how many marked fractures its images' boxes find."""
    found = [
        (called(name), part["boxes"]) for name, part in explanation.items() if part.get("boxes")
    ]
    return [
        {"age group": group, "images": one["images"], "with fractures": one["with_fractures"]}
        | {f"found at {most} false marks an image": how for most, how in one["froc"].items()}
        | {
            f"average precision at IoU {least}": how
            for least, how in one["average_precision"].items()
        }
        | {"first box in a fracture": one["pointing"]["marks"], "chance": one["pointing"]["chance"]}
        for group, one in found
        if one.get("froc")
    ]


def _localised(methods: list[tuple[str, str, Metrics]]) -> list[dict[str, Any]]:
    return [
        {"age group": group, "method": method, "metric": metric(name)}
        | _beside(one["localisation"][name], ("centre_prior", "chance"))
        for group, method, one in methods
        for name in MEASURES
        if name in (one.get("localisation") or {})
    ]


def _faithful(methods: list[tuple[str, str, Metrics]]) -> list[dict[str, Any]]:
    return [
        {"age group": group, "method": method, "metric": metric(name)}
        | _beside(one["faithfulness"][name], ("centre_prior",))
        for group, method, one in methods
        for name in ("most_relevant_first", "least_relevant_first", "combined")
        if name in (one.get("faithfulness") or {})
    ]


def _beside(measure: Metrics, others: tuple[str, ...]) -> dict[str, Any]:
    """Return the map's metric, and beside each other one how they compare."""
    return {"map": measure["map"]} | dict(_against(measure, others))


def _against(measure: Metrics, others: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for other in others:
        words = other.replace("_", " ")
        yield words, measure[other]
        yield f"map less {words}", measure[f"map_minus_{other}"]
    beaten = [other.replace("_", " ") for other in others if measure[f"beats_{other}"] is True]
    yield "shown to be better than", listed(beaten) or "neither"


def _forgotten(group: str, method: str, one: Metrics) -> dict[str, Any]:
    found = one["random_weights"]
    stages = {stage["name"]: stage["similarity"] for stage in found["stages"]}
    known = found.get("changes")
    changes = "not known" if known is None else yes_no(known)
    return {"age group": group, "method": method, "images": found["images"], **stages} | {
        "changes": changes
    }
