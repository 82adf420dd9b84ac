"""Drift page: one self-contained page on a window of images, for those who run the model.

It is made from the findings (drift.json) alone. Not here: any metric (drift).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from pedfrac.reporting import plots
from pedfrac.reporting.format import called, p_value
from pedfrac.reporting.page import LOOKS, beside, page_environment
from pedfrac.reporting.tables import Table

TEMPLATE = "drift.html.j2"
Findings = Mapping[str, Any]


def write_page(path: Path, findings: Findings) -> None:
    """Write the page; it needs no network, no script and no other file. Equal input, equal bytes.

    ``findings``: as ``drift.find_drift`` returns them.
    """
    findings = json.loads(json.dumps(findings, sort_keys=True))
    context = {
        "f": findings,
        "looks": Markup(beside(LOOKS)),
        "sizes": plots.draw(_sizes, findings["tests"]),
        "pictures": {
            name: plots.draw(_distribution, one)
            for name in findings["drifted"]
            if (one := findings["distributions"][name])
        },
        "comparisons": [_row(test) for test in findings["tests"]],
        "by_name": {test["name"]: test for test in findings["tests"]},
        "performance": _performance(findings),
        "prevalence": _prevalence(findings),
        "left_out": {name: n for name, n in findings["window"]["left_out"].items() if n},
    }
    path.write_text(
        page_environment().get_template(TEMPLATE).render(context).lstrip(), encoding="utf-8"
    )


def _row(test: Findings) -> dict[str, Any]:
    """Return a comparison as the table shows it."""
    seen = test["row"] or {}
    of = called(seen["of"]) if seen.get("of") else ""
    return {
        "title": f"{test['title']}: {of}" if of else test["title"],
        "drifted": test["drifted"],
        "reference": seen.get("reference"),
        "window": seen.get("window"),
        "change": seen.get("change"),
        "size": test["size"],
        "least": test["least"],
        "p": p_value(test["p_corrected"]),
        "p_value": test["p_corrected"],
        "test": test["test"],
        "words": called(test["words"]) if test["drifted"] else "",
    }


def _performance(findings: Findings) -> Table | None:
    if not findings.get("performance"):
        return None
    order = ("auroc", "sensitivity", "specificity", "calibration", "ece")
    rows = [findings["performance"][name] for name in order]
    cells = [[row["title"], row["reference"], row["window"], row["change"]] for row in rows]
    columns = ["Metric", "Reference", "Window", "Change"]
    return Table("Metrics on images with labels", columns, cells)


def _prevalence(findings: Findings) -> Table | None:
    if not findings.get("prevalence"):
        return None
    rows = [[name.capitalize(), value] for name, value in findings["prevalence"].items()]
    return Table("Share of fractured images", ["Images", "Share"], rows)


def _sizes(tests: list[Findings]) -> Figure | None:
    """Paint how large each change of the images is, beside what matters."""
    shown = [test for test in tests if test["kind"] == "images"]
    if not shown:
        return None
    figure, axes = plots.new(0.9 + 0.27 * len(shown))
    for y, test in enumerate(shown):
        look: Any = {"color": plots.VERMILION if test["drifted"] else plots.BLUE}
        marker = "D" if test["drifted"] else "o"
        axes.plot([0, test["size"]], [y, y], linewidth=1.6, **look)
        axes.plot([test["size"]], [y], marker=marker, markersize=5.5, linestyle="", **look)
    least = shown[0]["least"]
    line: Any = {"color": plots.INK, "linestyle": plots.DOTS, "linewidth": 1.1}
    axes.axvline(least, label="matters from here on", **line)
    for marker, colour, label in (
        ("D", plots.VERMILION, "change"),
        ("o", plots.BLUE, "none beyond chance, or none that matters"),
    ):
        axes.plot([], [], marker=marker, color=colour, linewidth=1.6, label=label)
    plots.name_rows(axes, [test["title"].split(",")[0] for test in shown])
    axes.set_xscale("symlog", linthresh=0.1)
    top = 1.4 * max(0.2, *(test["size"] for test in shown))
    axes.set_xlim(0, top)
    ticks = [tick for tick in (0, 0.05, 0.1, 0.3, 1, 3, 10, 30) if tick <= top]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("Size of the change")
    plots.legend(figure, 1)
    return figure


def _distribution(one: Findings) -> Figure:
    """Paint the shares of images of reference and window in bins, or of kinds."""
    figure, axes = plots.new(2.4)
    look: dict[str, Any] = {
        "reference": {"color": plots.BLUE, "linestyle": "-"},
        "window": {"color": plots.VERMILION, "linestyle": plots.DASH},
    }
    labels, numeric = one["labels"], not isinstance(one["labels"][0], str)
    for side, style in look.items():
        if numeric:
            axes.stairs(one[side], labels, linewidth=1.6, label=side, **style)
            continue
        step = -0.19 if side == "reference" else 0.19
        places = np.arange(len(labels)) + step
        hatch = None if side == "reference" else "///"
        axes.bar(places, one[side], 0.36, label=side, hatch=hatch, color=style["color"], alpha=0.8)
    if not numeric:
        axes.set_xticks(range(len(labels)), [called(label) for label in labels])
    axes.set_xlabel(one["title"])
    axes.set_ylabel("Share of images")
    axes.set_ylim(bottom=0)
    plots.legend(figure, 2)
    return figure
