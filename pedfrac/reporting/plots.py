"""Metrics: the drawings of the report, as SVG, in colours and marks that need no colour vision.

Not here: what they show (findings) and the tables that say the same in numbers (report).
"""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Interval = Mapping[str, Any]
Metrics = Mapping[str, Any]
INK, SLATE, LINE = "#1b2733", "#55616e", "#e3e7eb"

# Of Okabe and Ito: told apart with every kind of colour vision.
BLUE, VERMILION, GREEN = "#0072b2", "#d55e00", "#009e73"
LOOK: dict[str, dict[str, Any]] = {
    "bundle": {"color": BLUE, "marker": "o", "markerfacecolor": BLUE},
    "specialist": {"color": VERMILION, "marker": "^", "markerfacecolor": "white"},
    "generalist": {"color": GREEN, "marker": "s", "markerfacecolor": "white"},
    "metadata alone": {"color": INK, "marker": "x"},
}
DASH, DOTS = (0, (4, 2)), (0, (1, 1.5))
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.fontsize": 8.5,
    "svg.fonttype": "path",  # letters as outlines: the same on every machine
    "svg.hashsalt": "pedfrac",  # equal metrics, equal bytes
    "path.simplify": True,
}
LONGEST = 30  # letters of a row's name
WIDTH = 3.9  # inches: letters stay readable when a phone narrows the figure


def draw(paint: Callable[..., Figure | None], *arguments: Any) -> Markup | None:
    """Return what a function of this module paints, as a data URI; None where it paints nothing."""
    with matplotlib.rc_context(STYLE):
        figure = paint(*arguments)
        if figure is None:
            return None
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return data_uri(buffer.getvalue(), "image/svg+xml")


def data_uri(content: bytes, media: str) -> Markup:
    """Return a file as an address that needs no other place."""
    return Markup(f"data:{media};base64,{base64.b64encode(content).decode()}")


def areas(rows: Sequence[Metrics], called: Callable[[str], str]) -> Figure | None:
    """Paint the AUROC of each row's models and of its metadata alone, with 95 % intervals."""
    lines = [_areas_of(row) for row in rows]
    if all(area["value"] is None for line in lines for area in line.values()):
        return None
    figure, (axes,) = _new(1.1 + 0.52 * len(rows))
    for y, line in enumerate(lines):
        for place, (name, area) in enumerate(line.items()):
            step = 0.2 * (place - (len(line) - 1) / 2)
            _whisker(axes, area, y + step, LOOK[name], name if y == 0 else None)
    name_rows(axes, [called(row["name"]) for row in rows])
    axes.set_xlim(right=1.02)
    axes.set_xlabel("AUROC (95 % interval)")
    legend(figure, 2)
    return figure


def roc(curves: Metrics, models: Metrics) -> Figure | None:
    """Paint sensitivity over 1 - specificity with bands, and where the models work."""
    figure, axes = _curve_panel(curves, "roc", "fpr", "tpr")
    if figure is None:
        return None
    for name in curves:
        points = [models[name][kind]["value"] for kind in ("specificity", "sensitivity")]
        if None not in points:
            axes.plot(1 - points[0], points[1], linestyle="", markersize=7, **LOOK[name])
    axes.plot([0, 1], [0, 1], color=SLATE, linestyle=DOTS, linewidth=1)
    axes.text(0.62, 0.59, "chance", rotation=45, va="top", fontsize=8, color=SLATE)
    axes.set_xlabel("1 − specificity (normal images called fractured)")
    axes.set_ylabel("Sensitivity (fractured images found)")
    return figure


def precision_recall(curves: Metrics, prevalence: float) -> Figure | None:
    """Paint precision over recall with bands, beside the share of fractured images."""
    figure, axes = _curve_panel(curves, "pr", "recall", "precision")
    if figure is None:
        return None
    axes.axhline(prevalence, color=SLATE, linestyle=DOTS, linewidth=1, label="calling every image")
    axes.set_xlabel("Recall (fractured images found)")
    axes.set_ylabel("Precision (called images that are fractured)")
    return figure


def reliability(before: Sequence[Metrics], after: Sequence[Metrics]) -> Figure | None:
    """Paint the observed share of fractures over the predicted one, before and after."""
    if not before and not after:
        return None
    figure, (axes,) = _new(4.2)
    looks = {"before": LOOK["specialist"] | {"color": SLATE}, "after": LOOK["bundle"]}
    for (name, look), bins in zip(looks.items(), (before, after), strict=True):
        for number, point in enumerate(bins):
            low, high = _ends(point["observed"])
            axes.plot([point["predicted"]] * 2, [low, high], color=look["color"], linewidth=1.2)
            label = f"{name} calibration" if number == 0 else None
            seen = point["observed"]["value"]
            axes.plot(point["predicted"], seen, linestyle="", markersize=5, label=label, **look)
    axes.plot([0, 1], [0, 1], color=SLATE, linestyle=DOTS, linewidth=1, label="right probabilities")
    _unit_square(axes)
    axes.set_xlabel("Predicted probability of a fracture")
    axes.set_ylabel("Observed share of fractures")
    legend(figure, 1)
    return figure


def decision(curve: Metrics) -> Figure | None:
    """Paint net benefit over the chance of a fracture at which one would treat."""
    known = [one["value"] is not None for one in curve["model"]]
    if not any(known):
        return None
    figure, (axes,) = _new(3.5)
    chances = np.asarray(curve["chances"])
    model, low, high = _band(curve["model"])
    axes.fill_between(chances, low, high, color=BLUE, alpha=0.18, linewidth=0)
    axes.plot(chances, model, color=BLUE, linewidth=1.6, label="bundle (95 % band)")
    everyone = _band(curve["all"])[0]
    axes.plot(chances, everyone, color=VERMILION, linestyle=DASH, label="treat all")
    axes.axhline(curve["none"], color=INK, linestyle=DOTS, linewidth=1.2, label="treat none")
    top = max(np.nanmax(high), np.nanmax(everyone), 0.05)
    axes.set(xlim=(0, 1), ylim=(-0.35 * top, 1.08 * top))
    axes.set_xlabel("Chance of a fracture from which one would treat")
    axes.set_ylabel("Net benefit per image")
    axes.grid()
    legend(figure, 2)
    return figure


def subgroups(
    rows: Sequence[Metrics], metric_name: str, whole: Interval, called: Callable[[str], str]
) -> Figure | None:
    """Plot a metric of each subgroup; those that differ beyond chance have their own mark."""
    shown = [row for row in rows if row["metrics"].get(metric_name, {}).get("value") is not None]
    if not shown:
        return None
    figure, (axes,) = _new(1.2 + 0.21 * len(shown))
    marks: dict[str, dict[str, Any]] = {
        "differs from the others": {"color": VERMILION, "marker": "D"},
        "not shown to differ": {"color": BLUE, "marker": "o", "markerfacecolor": "white"},
        "too few to compare": {"color": SLATE, "marker": "|"},
    }
    for y, row in enumerate(shown):
        found = row["metrics"][metric_name]
        kind = 0 if found["differs"] else 1 if found["against"] else 2
        _whisker(axes, found, y, list(marks.values())[kind])
    for name, look in marks.items():
        axes.plot([], [], linestyle="", markersize=5, label=name, **look)
    if whole["value"] is not None:
        axes.axvline(whole["value"], color=INK, linestyle=DASH, linewidth=1, zorder=0)
    name_rows(axes, [called(row["name"]) for row in shown])
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"{metric_name.capitalize()} (95 % interval)")
    legend(figure, 1)
    return figure


def cohort(groups: Sequence[Metrics], called: Callable[[str], str]) -> Figure | None:
    """Paint fractured and normal images of the cohort by age group."""
    if not any(group["after"]["images"] for group in groups):
        return None
    figure, (axes,) = _new(2.9)
    places = np.arange(len(groups))
    kinds = (("fractured", VERMILION, "//"), ("normal", BLUE, ""))
    for side, (name, colour, hatch) in enumerate(kinds):
        heights = [group["after"][name] for group in groups]
        look: Any = {"color": colour, "hatch": hatch, "edgecolor": "white", "label": name}
        bars = axes.bar(places + 0.42 * (side - 0.5), heights, 0.4, **look)
        axes.bar_label(bars, [f"{h:,}" for h in heights], fontsize=7, padding=1)
    axes.set_xticks(
        places, [called(one["name"]).replace("\N{NO-BREAK SPACE}years", "") for one in groups]
    )
    axes.set_xlabel("Age (years)")
    axes.set_ylabel("Images")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.margins(y=0.1)
    axes.tick_params(axis="x", length=0)
    legend(figure, 2)
    return figure


def training(history: Sequence[Metrics], monitor: str | None) -> Figure | None:
    """Paint loss and monitored metric by epoch, training beside validation, the best marked."""
    if not history:
        return None
    wanted = [name for name in (monitor, "auroc", "f1", "accuracy") if name not in (None, "loss")]
    shown = ["loss", *(name for name in wanted if _known(history, str(name)))][:2]
    figure, panels = _new(2.3, len(shown))
    epochs = [entry["epoch"] for entry in history]
    best = [entry["epoch"] for entry in history if entry["best"]]
    parts = (("training", VERMILION, DASH), ("validation", BLUE, "-"))
    for axes, name in zip(panels, shown, strict=True):
        for part, colour, line in parts:
            values = [_number(entry[part].get(name)) for entry in history]
            marker = "o" if len(epochs) < 3 else None
            look: Any = {"color": colour, "linestyle": line, "marker": marker, "markersize": 4}
            axes.plot(epochs, values, linewidth=1.4, label=part, **look)
        if best:
            axes.axvline(best[-1], color=INK, linestyle=DOTS, linewidth=1.1, label="best epoch")
        axes.set_xlabel("Epoch")
        axes.set_title({"auroc": "AUROC", "f1": "F1"}.get(str(name), str(name).capitalize()))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.margins(x=0.03)
        axes.grid()
    legend(figure, 3)
    return figure


def _areas_of(row: Metrics) -> dict[str, Interval]:
    nothing = {"value": None}
    models = {name: row["models"].get(name, {}).get("auroc", nothing) for name in list(LOOK)[:3]}
    return models | {"metadata alone": next(iter(row["baselines"].values()), nothing)}


def new(height: float) -> tuple[Figure, Axes]:
    """Return a figure so many inches high, and its axes."""
    figure, (axes,) = _new(height)
    return figure, axes


def _new(height: float, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def legend(figure: Figure, columns: int) -> None:
    """Put one legend above the axes, where it can cover nothing."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Give a horizontal row a name, first on top."""
    shown = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    axes.set_yticks(range(len(names)), shown)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def _whisker(
    axes: Axes, found: Interval, y: float, look: Metrics, label: str | None = None
) -> None:
    if found["value"] is None:
        axes.plot([], [], markersize=5, label=label, **look)  # its place in the legend
        return
    axes.plot(_ends(found), [y, y], color=look["color"], linewidth=1.4)
    axes.plot([found["value"]], [y], markersize=5, linestyle="", label=label, **look)


def _ends(found: Interval) -> tuple[float, float]:
    low, high = (found["value"] if found[end] is None else found[end] for end in ("low", "high"))
    return low, high


def _curve_panel(curves: Metrics, kind: str, x: str, y: str) -> tuple[Figure | None, Axes]:
    figure, (axes,) = _new(4.3)
    known = {name: curve[kind] for name, curve in sorted(curves.items()) if curve[kind][x]}
    for name, curve in known.items():
        colour, line = LOOK[name]["color"], "-" if name == "bundle" else DASH
        if curve["low"]:
            look: Any = {"color": colour, "alpha": 0.16, "linewidth": 0}
            axes.fill_between(curve[x], curve["low"], curve["high"], **look)
        axes.plot(curve[x], curve[y], color=colour, linestyle=line, linewidth=1.6, label=name)
    _unit_square(axes)
    if known:
        legend(figure, 2)
    return figure if known else None, axes


def _unit_square(axes: Axes) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.grid()


def _band(intervals: Sequence[Interval]) -> list[np.ndarray]:
    return [
        np.array(
            [_number(one[part] if one[part] is not None else one["value"]) for one in intervals]
        )
        for part in ("value", "low", "high")
    ]


def _known(history: Iterable[Metrics], name: str) -> bool:
    return any(entry["validation"].get(name) is not None for entry in history)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
