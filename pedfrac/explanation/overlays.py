"""Pictures: images beside their heat maps, one by one and as the montage of an age group.

Not here: the maps (heat_maps) and which images are shown (verdicts).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from pedfrac.explanation.outcomes import VERDICTS
from pedfrac.explanation.saliency import METHOD_NAMES
from pedfrac.imaging.letterbox import Placement
from pedfrac.scoring.finding_boxes import FindingBox

MONTAGE_ROWS = {"miss": "Misses", "false-alarm": "False alarms", "hit": "Hits"}
MONTAGE_COLUMNS = 5
BOX_COLOUR = "#00e5ff"  # neither grey nor in the heat's colours
MARK_COLOUR = "#66ff66"
DPI = 100
MONTAGE_BYTES = 600_000  # it is embedded in a report


def _heat_colours() -> ListedColormap:
    """Return plasma (even to the eye) whose opacity grows with the heat, so that image shows."""
    colours = colormaps["plasma"](np.linspace(0.15, 1, 256))
    colours[:, 3] = 0.75 * np.linspace(0, 1, 256) ** 0.7
    return ListedColormap(colours)


HEAT = _heat_colours()


@dataclass(frozen=True, eq=False)
class View:
    """An image (S,S) with its map, boxes, window (xyxy) and what is said of it."""

    stem: str
    age: float
    truth: bool
    probability: float
    threshold: float
    verdict: str
    image: NDArray[np.uint8]
    heat: NDArray[np.float32]
    boxes: NDArray[np.float32]
    window: tuple[int, int, int, int]
    marks: Sequence[FindingBox] = ()

    @property
    def file(self) -> str:
        """The name of its picture."""
        return f"{self.stem}_{self.verdict}.png"

    @property
    def flat(self) -> bool:
        """Whether the map holds no evidence."""
        return bool(self.heat.max() == self.heat.min())


def heat_layer(heat: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a map (S,S) in 0…1 as a picture (height,width,4), red first, to lay over its image.

    ``shape`` is the image's (height,width); where there is no heat the picture lets it through.
    """
    part = heat[Placement.of(*shape, heat.shape[0]).window]
    size = shape[::-1]
    whole = cv2.resize(np.ascontiguousarray(part), size, interpolation=cv2.INTER_LINEAR)
    return (HEAT(whole) * 255).round().astype(np.uint8)


def draw_image(view: View, method: str, path: Path) -> None:
    """Write one image beside the same with its heat map: all of the square that the network saw."""
    figure = Figure(figsize=(9.8, 5.6), dpi=DPI)
    words, colour, _ = VERDICTS[view.verdict]
    title = words[0].upper() + words[1:]
    figure.text(0.012, 0.945, title, fontsize=14, weight="bold", color=colour)
    facts = (
        f"age {view.age:.1f} years    truth: {'fracture' if view.truth else 'no fracture'}    "
        f"probability {view.probability:.3f}    threshold {view.threshold:.3f}"
    )
    figure.text(0.012, 0.895, facts, fontsize=11)
    figure.text(0.988, 0.945, view.stem, fontsize=10, color="#555555", ha="right")
    left, right = (figure.add_axes((x, 0.065, 0.459, 0.803)) for x in (0.012, 0.529))
    for axes, with_heat in ((left, False), (right, True)):
        _show(axes, view, with_heat)
    _colour_bar(figure, (0.79, 0.893, 0.15, 0.024))
    boxes = "; outlined: marked fracture" if len(view.boxes) else ""
    boxes += "; dashed: found by the network" if view.marks else ""
    figure.text(0.012, 0.02, f"The image as the network sees it{boxes}", fontsize=10)
    flat = ": none, the map is flat" if view.flat else ""
    figure.text(0.529, 0.02, f"{METHOD_NAMES[method]}: evidence for a fracture{flat}", fontsize=10)
    _save(figure, path)


def _show(axes: Axes, view: View, with_heat: bool) -> None:
    axes.imshow(view.image, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    if with_heat:
        axes.imshow(view.heat, cmap=HEAT, vmin=0, vmax=1, interpolation="bilinear")
    for x1, y1, x2, y2 in view.boxes - 0.5:  # imshow puts the centre of the first pixel at 0
        outline = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, lw=1.4, ec=BOX_COLOUR)
        axes.add_patch(outline)
    for mark in view.marks:
        x, y, right, lower = (side - 0.5 for side in mark.corners)
        outline = Rectangle((x, y), right - x, lower - y, fill=False, lw=1.6, ls="--")
        outline.set_edgecolor(MARK_COLOUR)
        axes.add_patch(outline)
    axes.set_axis_off()


def _colour_bar(figure: Figure, place: tuple[float, float, float, float]) -> None:
    """Draw the heat's colours as they look on a grey image, from none (left) to most."""
    axes = figure.add_axes(place, facecolor="#606060")
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=HEAT, vmin=0, vmax=1, aspect="auto")
    axes.set(xticks=[], yticks=[])
    for x, side, words in ((-0.03, "right", "no heat"), (1.03, "left", "most")):
        axes.text(x, 0.5, words, transform=axes.transAxes, fontsize=9, ha=side, va="center")


def draw_montage(
    name: str,
    table: pd.DataFrame,
    rows: dict[str, list[int]],
    views: dict[int, View],
    threshold: float,
    method: str,
    path: Path,
) -> None:
    """Write a row of images per verdict, each image beside its heat map, or words where none is."""
    heights = [2.75 if places else 0.75 for places in rows.values()]
    total = 0.75 + sum(heights)
    figure = Figure(figsize=(12, total), dpi=DPI)
    title = f"{name}: where the network saw evidence for a fracture ({METHOD_NAMES[method]})"
    figure.text(0.01, 1 - 0.3 / total, title, fontsize=14, weight="bold")
    legend = (
        "each image, then with its heat, cut at the image's edge; "
        "outlined: marked fracture; "
        + ("dashed: found by the network; " if any(one.marks for one in views.values()) else "")
        + f"called a fracture from p {threshold:.3f}"
    )
    figure.text(0.01, 1 - 0.56 / total, legend, fontsize=10, color="#555555")
    _colour_bar(figure, (0.83, 1 - 0.58 / total, 0.12, 0.13 / total))
    top = total - 0.75
    for (verdict, places), height in zip(rows.items(), heights, strict=True):
        count = int((table["verdict"] == verdict).sum())
        _draw_row(figure, verdict, [views[at] for at in places], count, top, total)
        top -= height
    _save(figure, path, MONTAGE_BYTES)


def _draw_row(
    figure: Figure, verdict: str, views: list[View], count: int, top: float, total: float
) -> None:
    """Draw the images of a verdict from ``top`` inches of a figure ``total`` inches high down."""
    _, colour, order = VERDICTS[verdict]
    shown = f"{len(views)} of {count}, {order}" if views else "none among the images of this group"
    heading = f"{MONTAGE_ROWS[verdict]}: {shown}"
    figure.text(0.01, (top - 0.3) / total, heading, fontsize=12, weight="bold", color=colour)
    pitch, gap, high = 0.98 / MONTAGE_COLUMNS, 0.01, 2.0
    for column, view in enumerate(views):
        x, width = 0.01 + column * pitch, (pitch - gap) / 2
        for half in (0, 1):
            place = (x + half * width, (top - 0.42 - high) / total, width * 0.98, high / total)
            axes = figure.add_axes(place)
            _show(axes, view, with_heat=bool(half))
            axes.set_anchor("SW" if half else "SE")
            left, upper, right, lower = view.window
            axes.set(xlim=(left - 0.5, right - 0.5), ylim=(lower - 0.5, upper - 0.5))
        words = f"p {view.probability:.3f}, {view.age:.1f} years"
        words += ", no heat" if view.flat else ""
        middle, below = x + width, (top - 0.42 - high - 0.17) / total
        figure.text(middle, below, words, fontsize=8.5, ha="center")


def _save(figure: Figure, path: Path, most_bytes: int | None = None) -> None:
    """Write a figure as PNG, in fewer pixels where it would be too large."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    picture.save(path)
    while most_bytes is not None and path.stat().st_size > most_bytes:
        picture = picture.resize((picture.width * 9 // 10, picture.height * 9 // 10))
        picture.save(path)
