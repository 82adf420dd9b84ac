"""Report: one self-contained page per retraining, for clinician-readers and researchers.

Not here: any figure is computed elsewhere (evaluation, explanation); this only shows it.
"""

import base64
import io
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pedfrac.errors import PedfracError

TEMPLATE = "report.html.j2"
ALL = -1  # the group that stands for all films
MODEL_NAMES = {"age": "Age classifier", "generalist": "Generalist", "all": "All ages"}

ACCENT, SLATE, INK = "#0b6470", "#6b7785", "#1b2733"
# Vermilion and blue of Okabe and Ito: told apart with every kind of colour vision.
FRACTURE, NORMAL = "#d55e00", "#0072b2"
LOOK: dict[str, dict[str, Any]] = {
    "specialist": {"color": ACCENT, "marker": "o", "markerfacecolor": ACCENT},
    "generalist": {"color": SLATE, "marker": "s", "markerfacecolor": "white"},
}
DASHES = ((0, (4, 2)), (0, (1, 1.5)))

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": INK,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "svg.fonttype": "path",  # letters as outlines: the same on every machine
    "svg.hashsalt": "pedfrac",  # equal figures, equal bytes
    "path.simplify": True,
}
WIDTH = 4.2  # inches: letters stay readable when a phone narrows the figure

MONTAGE_BYTES = 5_000_000  # for all montages of a page together
MONTAGE_WIDTHS = (2000, 1400, 1000, 700)
MONTAGE_QUALITIES = (85, 70, 55)

Interval = Mapping[str, Any]


@dataclass(frozen=True)
class ReportInput:
    """What a page shows, in the shapes in which the artifacts hold it.

    ``cohort``: cohort.json. ``records``: summary.json of the records. ``split``: split.json.
    ``histories`` and ``summaries``: history.json and summary.json by name of model ("age",
    "generalist", or an age group's name). ``figures``: figures.json. ``explanations`` and
    ``montages`` (PNG files) by age group's name. ``config``: the RetrainConfig as JSON.
    ``provenance``: rows of a table, in order.
    """

    title: str
    cohort: dict[str, Any]
    records: dict[str, Any]
    split: dict[str, Any]
    histories: dict[str, list[dict[str, Any]]]
    summaries: dict[str, dict[str, Any]]
    figures: dict[str, Any]
    explanations: dict[str, dict[str, Any]]
    montages: dict[str, Path]
    config: dict[str, Any]
    provenance: dict[str, Any]


def write_report(path: Path, content: ReportInput) -> None:
    """Write the page; it needs no network, no script and no other file. Equal input, equal bytes.

    Raises PedfracError that names a montage which cannot be read.
    """
    page = _environment().get_template(TEMPLATE).render(_context(content)).lstrip()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": _count, "share": _share, "called": _called, "plural": _plural}
    environment.globals |= {"new_notes": Notes, "figure_of": figure_of}
    return environment


def _context(content: ReportInput) -> dict[str, Any]:
    groups = content.figures["groups"]
    with matplotlib.rc_context(STYLE):
        figures = _figures(content)
    return {
        "c": content,
        "whole": next(group for group in groups if group["group"] == ALL),
        "groups": groups,
        "names": [group["name"] for group in content.cohort["groups"]],
        "specialists": [
            g["name"] for g in content.cohort["groups"] if g["name"] in content.summaries
        ],
        "models": ("specialist", "generalist"),
        "pictures": figures,
        "montages": _montages(content.montages),
        "config": yaml.safe_dump(content.config, sort_keys=False, allow_unicode=True),
        "colours": {"accent": ACCENT, "fracture": FRACTURE, "normal": NORMAL},
    }


# ---- words and numbers ------------------------------------------------------------------------


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

    def __iter__(self) -> Any:
        return ((self.mark(reason), reason) for reason in self.reasons)


def figure_of(models: Mapping[str, Any], model: str, name: str) -> Interval:
    """Return a model's figure as an interval, with a reason where there is no such model."""
    missing = {"value": None, "low": None, "high": None, "reason": f"no {model} was tested here"}
    return models.get(model, {}).get(name, missing)


def _count(number: int) -> str:
    return f"{number:,}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}".replace("%", "\N{NO-BREAK SPACE}%") if whole else "–"


def _called(name: str) -> str:
    """Return the name of a model or group as people write it: ``1.5-5y`` is ``1.5–5 years``."""
    if name in MODEL_NAMES:
        return MODEL_NAMES[name]
    if name.endswith("y") and "-" in name:
        return name[:-1].replace("-", "–") + "\N{NO-BREAK SPACE}years"
    return name


def _plural(number: int, noun: str) -> str:
    return f"{number:,}\N{NO-BREAK SPACE}{noun}{'' if number == 1 else 's'}"


# ---- figures ----------------------------------------------------------------------------------


def _figures(content: ReportInput) -> dict[str, Any]:
    figures = content.figures
    baselines = figures["baselines"]
    whole = next(group for group in figures["groups"] if group["group"] == ALL)
    return {
        "groups": _draw(_forest, figures["groups"], baselines),
        "subsets": _draw(_forest, [whole, *figures["subsets"]], baselines),
        "roc": _draw(_roc, figures["roc"], whole["models"]),
        "cohort": _draw(_bars, content.cohort["groups"]),
        "training": {
            name: _draw(_curves, history, content.summaries.get(name, {}).get("monitor"))
            for name, history in content.histories.items()
        },
    }


def _draw(paint: Callable[..., Figure | None], *arguments: Any) -> Markup | None:
    """Return a figure as a data URI, or None where there is nothing to show."""
    figure = paint(*arguments)
    if figure is None:
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _data_uri(buffer.getvalue(), "image/svg+xml")


def _data_uri(content: bytes, media: str) -> Markup:
    return Markup(f"data:{media};base64,{base64.b64encode(content).decode()}")


def _new(height: float, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _legend(figure: Figure, columns: int) -> None:
    """Put one legend above the axes, where it can cover nothing."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=8)


def _forest(rows: Sequence[Mapping[str, Any]], baselines: Mapping[str, Interval]) -> Figure | None:
    """Draw the AUROC of each row's models with its interval, and the baselines as lines."""
    known = [figure_of(row["models"], model, "auroc") for row in rows for model in LOOK]
    if all(interval["value"] is None for interval in known):
        return None
    figure, (axes,) = _new(1.2 + 0.4 * len(rows))
    for place, model in enumerate(LOOK):
        for y, row in enumerate(rows):
            interval = figure_of(row["models"], model, "auroc")
            _whisker(axes, interval, y + 0.26 * (place - 0.5), model, label=y == 0)
    _baseline_lines(axes, baselines)
    axes.set_yticks(range(len(rows)), [_called(row["name"]) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(right=1.01)
    axes.set_xlabel("AUROC (95 % interval)")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e3e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    _legend(figure, 2)
    return figure


def _whisker(axes: Axes, interval: Interval, y: float, model: str, label: bool) -> None:
    look = LOOK[model] | ({"label": model} if label else {})
    if interval["value"] is None:
        axes.plot([], [], markersize=4.5, **look)  # its place in the legend
        axes.text(
            *(0.02, y, f"– {model} not defined"),
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=7,
            color=SLATE,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )
        return
    value = interval["value"]
    low, high = (value if interval[end] is None else interval[end] for end in ("low", "high"))
    # A point may lie outside its bootstrap interval; errorbar would refuse a negative length.
    axes.plot([low, high], [y, y], color=LOOK[model]["color"], linewidth=1.4)
    axes.plot([value], [y], markersize=4.5, linestyle="", **look)


def _baseline_lines(axes: Axes, baselines: Mapping[str, Interval]) -> None:
    for (name, interval), dash in zip(baselines.items(), DASHES * len(baselines), strict=False):
        if interval["value"] is not None:
            axes.axvline(
                interval["value"],
                color=INK,
                linestyle=dash,
                linewidth=1.1,
                zorder=0,
                label=f"no pixels: {name}",
            )


def _roc(curves: Mapping[str, Any], models: Mapping[str, Any]) -> Figure | None:
    """Draw the curves of specialists and generalist, with the points at which they work."""
    drawn = [name for name in LOOK if curves.get(name, {}).get("fpr")]
    if not drawn:
        return None
    figure, (axes,) = _new(4.5)
    for name in drawn:
        colour = LOOK[name]["color"]
        axes.plot(curves[name]["fpr"], curves[name]["tpr"], color=colour, linewidth=1.5, label=name)
        _working_point(axes, models, name)
    axes.plot([0, 1], [0, 1], color="#9aa5b1", linestyle=DASHES[1], linewidth=1)
    axes.text(0.62, 0.6, "chance", rotation=45, va="top", fontsize=7.5, color=SLATE)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("1 − specificity (normal films called fractured)")
    axes.set_ylabel("Sensitivity (fractured films found)")
    axes.grid(color="#e3e7eb", linewidth=0.7)
    _legend(figure, 2)
    return figure


def _working_point(axes: Axes, models: Mapping[str, Any], name: str) -> None:
    found = figure_of(models, name, "sensitivity")["value"]
    spared = figure_of(models, name, "specificity")["value"]
    if found is not None and spared is not None:
        look = LOOK[name] | {"label": f"{name}, at its threshold"}
        axes.plot([1 - spared], [found], linestyle="", markersize=6, clip_on=False, **look)


def _bars(groups: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Draw fractured and normal films of the cohort per age group."""
    if not any(group["after"]["images"] for group in groups):
        return None
    figure, (axes,) = _new(2.9)
    places = np.arange(len(groups))
    for side, (name, colour) in enumerate((("fractured", FRACTURE), ("normal", NORMAL))):
        heights = [group["after"][name] for group in groups]
        bars = axes.bar(places + 0.4 * (side - 0.5), heights, 0.37, color=colour, label=name)
        axes.bar_label(bars, [f"{h:,}" for h in heights], fontsize=7, padding=1)
    axes.set_xticks(
        places, [_called(g["name"]).replace("\N{NO-BREAK SPACE}years", "") for g in groups]
    )
    axes.set_xlabel("Age (years)")
    axes.set_ylabel("Films")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.margins(y=0.1)
    axes.tick_params(axis="x", length=0)
    _legend(figure, 2)
    return figure


def _curves(history: Sequence[Mapping[str, Any]], monitor: str | None) -> Figure | None:
    """Draw loss and monitored figure per epoch, training beside validation, best epoch marked."""
    if not history:
        return None
    wanted = [name for name in (monitor, "auroc", "f1", "accuracy") if name not in (None, "loss")]
    shown = ["loss", *(name for name in wanted if _known(history, str(name)))][:2]
    figure, panels = _new(2.3, len(shown))
    epochs = [entry["epoch"] for entry in history]
    best = [entry["epoch"] for entry in history if entry["best"]]
    for axes, name in zip(panels, shown, strict=True):
        for part, colour in (("training", SLATE), ("validation", ACCENT)):
            values = [_number(entry[part][name]) for entry in history]
            style = "o-" if len(epochs) < 3 else "-"
            axes.plot(epochs, values, style, color=colour, markersize=4, linewidth=1.4, label=part)
        if best:
            axes.axvline(
                best[-1], color=INK, linestyle=DASHES[0], linewidth=0.9, label="best epoch"
            )
        axes.set_xlabel("Epoch")
        axes.set_title({"auroc": "AUROC", "f1": "F1"}.get(str(name), str(name).capitalize()))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.margins(x=0.03)
        axes.grid(color="#e3e7eb", linewidth=0.7)
    _legend(figure, 3)
    return figure


def _known(history: Iterable[Mapping[str, Any]], name: str) -> bool:
    return any(entry["validation"].get(name) is not None for entry in history)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


# ---- montages ---------------------------------------------------------------------------------


def _montages(paths: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    budget = MONTAGE_BYTES // max(len(paths), 1)
    return {name: _montage(path, budget) for name, path in paths.items()}


def _montage(path: Path, budget: int) -> dict[str, Any]:
    """Return a montage as the best JPEG that keeps within a budget of bytes, or the smallest."""
    pixels = cv2.imread(str(path))
    if pixels is None:
        raise PedfracError(f"{path}: cannot be read as an image; it must be a PNG")
    for width, quality in product(MONTAGE_WIDTHS, MONTAGE_QUALITIES):
        small = _narrowed(pixels, width)
        _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if encoded.nbytes <= budget:
            break
    uri = _data_uri(encoded.tobytes(), "image/jpeg")
    return {"uri": uri, "width": small.shape[1], "height": small.shape[0]}


def _narrowed(pixels: np.ndarray, width: int) -> np.ndarray:
    scale = width / pixels.shape[1]
    if scale >= 1:
        return pixels
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
