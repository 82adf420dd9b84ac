"""Heat maps of what a network looked at, how well they meet the fracture boxes, and pictures.

Not here: the predictions and thresholds that are explained (the evaluation makes them).
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from pedfrac.config import ExplanationConfig
from pedfrac.errors import PedfracError
from pedfrac.models import FilmClassifier
from pedfrac.packing import Pack
from pedfrac.pixels import Placement, as_boxes
from pedfrac.records import CLASSES
from pedfrac.storage import write_json

METHODS = {"gradcam": GradCAM, "hirescam": HiResCAM, "gradcam++": GradCAMPlusPlus}
METHOD_NAMES = {"gradcam": "Grad-CAM", "hirescam": "HiResCAM", "gradcam++": "Grad-CAM++"}
FRACTURED = 1  # the class whose evidence is shown
FRACTURE_BOX = CLASSES.index("fracture")
CHUNK = 256  # films whose maps are in memory at a time
NOTE = (
    "Films with a fracture box. Pointing: share of films whose hottest pixel lies in a box; "
    "interval: Wilson, counting patients. Mass: mean share of the heat inside the boxes, heat "
    "beside the film included; interval: bootstrap over patients. Chance: mean share of the "
    "film's own area (without the letterbox) inside the boxes, which a point or heat spread "
    "evenly over the film would reach. A flat map is no hit and has the mass of chance."
)

# --- heat maps ------------------------------------------------------------------------------


def heat_maps(
    model: FilmClassifier,
    films: NDArray[np.uint8],
    target: int | NDArray[np.int64],
    method: str,
    *,
    device: torch.device,
    batch_size: int = 16,
) -> NDArray[np.float32]:
    """Return heat maps (n,S,S) in 0…1 of films (n,S,S) for one class, or one class per film.

    Each map is scaled to its own maximum; one without evidence for the class is zero everywhere.
    The model is left as it was. Raises PedfracError for a method that is not in METHODS, a
    backbone without a last map of channels in two dimensions, and maps that are not finite.
    """
    if method not in METHODS:
        raise PedfracError(f"explanation.method {method!r}: allowed are {', '.join(METHODS)}")
    targets = [ClassifierOutputTarget(t) for t in np.broadcast_to(target, len(films)).tolist()]
    # A copy, since the library leaves hooks, gradients and evaluation mode on what it is given.
    model = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    layer, reshape = _target_layer(model.network)
    maps = np.empty(films.shape, np.float32)
    cam = METHODS[method](model, [layer], reshape_transform=reshape)
    try:  # not "with": the library's __exit__ swallows IndexError
        for start in range(0, len(films), batch_size):
            some = slice(start, start + batch_size)
            batch = torch.from_numpy(np.ascontiguousarray(films[some])).to(device)
            maps[some] = cam(batch[:, None].float() / 255, targets[some])
    finally:
        cam.activations_and_grads.release()
    if broken := int((~np.isfinite(maps)).any(axis=(1, 2)).sum()):
        raise PedfracError(
            f"{broken} of {len(maps)} {method} heat maps are not finite: the weights are broken"
        )
    return maps


def _target_layer(network: Any) -> tuple[nn.Module, Callable[[Tensor], Tensor] | None]:
    """Return timm's deepest feature stage, and how its output becomes channels first.

    Its output is that of its last block: ``stages[-1].blocks[-1]`` of a ConvNeXt V2,
    ``layers[-1].blocks[-1]`` of a Swin.
    """
    info = getattr(network, "feature_info", None)
    if not info:
        raise _refusal(network, "it does not say where its features are")
    channels_last = str(getattr(network, "output_fmt", "NCHW")) == "NHWC"
    axes = (0, 3, 1, 2) if channels_last else (0, 1, 2, 3)

    def start_gradient(module: nn.Module, _: Any, output: Any) -> Tensor:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if len(shape) != 4 or shape[axes[1]] != info[-1]["num_chs"]:
            raise _refusal(network, f"{info[-1]['module']} gives {shape}")
        # The gradient need not go further back than here; the clone may be changed in place.
        return output.detach().requires_grad_().clone()

    layer = network.get_submodule(info[-1]["module"])
    layer.register_forward_hook(start_gradient)
    return layer, (lambda x: x.permute(axes)) if channels_last else None


def _refusal(network: Any, found: str) -> PedfracError:
    name = getattr(network, "pretrained_cfg", {}).get("architecture", type(network).__name__)
    return PedfracError(
        f"backbone {name}: no heat maps, {found}; supported are timm networks whose last feature "
        "stage is a map of channels in two dimensions, such as ConvNeXt, Swin, ResNet, EfficientNet"
    )


# --- do maps meet boxes? --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Localisation:
    """Of each film with a box: does the peak lie in a box, and how much of heat and film does."""

    film: NDArray[np.int64]  # place among the maps
    hit: NDArray[np.bool_]
    mass: NDArray[np.float64]
    area: NDArray[np.float64]


def localisation(
    maps: NDArray[np.float32],
    boxes: Sequence[NDArray[np.floating]],
    windows: ArrayLike | None = None,
) -> Localisation:
    """Return how well maps (n,S,S) meet boxes, n arrays (k,4) xyxy in their pixels.

    ``windows`` (n,4) xyxy say where the film lies in each letterbox; none: everywhere. Boxes are
    rounded outward and clipped to the window; ``mass`` counts all heat, beside the film too, and
    ``area`` the window only. A flat map has no peak (no hit) and the mass of its area.
    """
    whole = (0, 0, maps.shape[2], maps.shape[1])
    within = np.broadcast_to(whole, (len(maps), 4)) if windows is None else as_boxes(windows)
    film = [at for at, found in enumerate(boxes) if len(found)]
    figures = [_meet(maps[at], boxes[at], within[at]) for at in film]
    hit, mass, area = zip(*figures, strict=True) if figures else ((), (), ())
    return Localisation(
        np.array(film, np.int64), np.array(hit, bool), np.array(mass, float), np.array(area, float)
    )


def _meet(
    heat: NDArray[np.float32], boxes: NDArray[np.floating], window: NDArray[np.floating]
) -> tuple[bool, float, float]:
    film = _mask(heat.shape, [window])
    inside = _mask(heat.shape, boxes) & film
    area = float(inside.sum() / max(film.sum(), 1))
    if heat.max() == heat.min():
        return False, area, area
    mass = heat[inside].sum(dtype=np.float64) / heat.sum(dtype=np.float64)
    return bool(inside.flat[heat.argmax()]), float(mass), area


def _mask(shape: tuple[int, ...], boxes: ArrayLike | list[Any]) -> NDArray[np.bool_]:
    """Return the pixels that boxes touch."""
    mask = np.zeros(shape, bool)
    for x1, y1, x2, y2 in as_boxes(boxes):
        top, left = max(0, int(np.floor(y1))), max(0, int(np.floor(x1)))
        mask[top : max(0, int(np.ceil(y2))), left : max(0, int(np.ceil(x2)))] = True
    return mask


def _pointing(hit: NDArray[np.bool_], patients: NDArray[Any]) -> dict[str, Any]:
    """Return the share of hits with its 95 % Wilson interval (Wilson 1927, JASA 22:209).

    Films of one patient resemble each other, so n is the number of patients. Unlike a bootstrap,
    it does not shrink to nothing where all films hit, or none.
    """
    if not len(hit):
        return _no_interval("no film with a fracture box")
    p, n, z = float(hit.mean()), len(np.unique(patients)), 1.96
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)))
    return {"value": p, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def _mean(values: NDArray[np.float64], patients: NDArray[Any]) -> dict[str, Any]:
    """Return the mean with its 95 % percentile interval from 1000 resamples of patients."""
    if not len(values):
        return _no_interval("no film with a fracture box")
    _, who = np.unique(patients, return_inverse=True)
    films, sums = np.bincount(who), np.bincount(who, values)
    if len(films) == 1:
        return _no_interval("one patient only") | {"value": float(values.mean())}
    drawn = np.random.default_rng(0).integers(len(films), size=(1000, len(films)))
    means = sums[drawn].sum(axis=1) / films[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


def _no_interval(reason: str) -> dict[str, Any]:
    return {"value": None, "low": None, "high": None, "reason": reason}


# --- one group of films ---------------------------------------------------------------------


def explain_group(
    folder: Path,
    name: str,
    model: FilmClassifier,
    pack: Pack,
    rows: NDArray[np.int64],
    truth: NDArray[np.bool_],
    probability: NDArray[np.float64],
    threshold: float,
    config: ExplanationConfig,
    *,
    device: torch.device,
) -> dict[str, Any]:
    """Write figures.json, montage.png and pictures of films under ``folder/name``.

    ``rows`` (n,) of the pack are the films of the group, with their truth (n,) and probability
    (n,) of a fracture; a film is called fractured from the threshold on. All films count in the
    figures, at most ``config.films_per_group`` have a picture. Returns what figures.json holds.
    """
    table = _film_table(pack, rows, truth, probability, threshold)
    chosen = _choose(table, config.films_per_group)
    montage = {verdict: _ranked(table, verdict)[:MONTAGE_COLUMNS] for verdict in MONTAGE_ROWS}
    keep = {at for places in (chosen, *montage.values()) for at in places}
    found, kept = _measure(model, pack, table, keep, config, device)
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    views = {at: _view(pack, table, at, heat, threshold) for at, heat in kept.items()}
    for at in chosen:
        _draw_film(views[at], config.method, target / views[at].file)
    place = target / "montage.png"
    _draw_montage(name, table, montage, views, threshold, config.method, place)
    patients = table["patient_id"].to_numpy()[found.film]
    figures = {
        "group": name,
        "films": len(table),
        "with_boxes": len(found.film),
        "pointing": _pointing(found.hit, patients),
        "mass": _mean(found.mass, patients),
        "chance": float(found.area.mean()) if len(found.area) else None,
        "method": config.method,
        "note": NOTE,
        "verdicts": {verdict: int((table["verdict"] == verdict).sum()) for verdict in VERDICTS},
        "pictures": [views[at].file for at in chosen],
    }
    write_json(target / "figures.json", figures)
    return figures


# What each verdict is called in words, its colour (Okabe and Ito's), and which films come first:
# the misses the model was surest of, and so on.
VERDICTS = {
    "hit": ("hit: a fracture, found", "#007a5a", "highest probability first"),
    "miss": ("miss: a fracture, not found", "#b84a00", "lowest probability first"),
    "false-alarm": ("false alarm: no fracture", "#a3347a", "highest probability first"),
    "correct-rejection": ("correct rejection: no fracture", "#005f99", "lowest probability first"),
}
MONTAGE_ROWS = {"hit": "Hits", "miss": "Misses", "false-alarm": "False alarms"}
MONTAGE_COLUMNS = 5


def _film_table(
    pack: Pack,
    rows: NDArray[np.int64],
    truth: NDArray[np.bool_],
    probability: NDArray[np.float64],
    threshold: float,
) -> pd.DataFrame:
    called = np.asarray(probability) >= threshold
    fractured = np.asarray(truth, bool)
    verdicts = np.where(
        fractured,
        np.where(called, "hit", "miss"),
        np.where(called, "false-alarm", "correct-rejection"),
    )
    columns = ["filestem", "patient_id", "age", "width", "height"]
    table = pack.index[columns].iloc[rows].reset_index(drop=True)
    return table.assign(row=rows, truth=fractured, probability=probability, verdict=verdicts)


def _ranked(table: pd.DataFrame, verdict: str) -> list[int]:
    """Return the places of the films of a verdict, those the model was surest of first."""
    some = table[table["verdict"] == verdict]
    lowest_first = VERDICTS[verdict][2].startswith("lowest")
    order = some.sort_values(["probability", "filestem"], ascending=[lowest_first, True])
    return [int(at) for at in order.index]


def _choose(table: pd.DataFrame, most: int) -> list[int]:
    """Return the places of the films to show: errors of both kinds in turn, hits, the rest."""
    errors = [
        (turn, at)
        for verdict in ("miss", "false-alarm")
        for turn, at in enumerate(_ranked(table, verdict))
    ]
    in_turn = [at for _, at in sorted(errors, key=lambda error: error[0])]
    right = _ranked(table, "hit") + _ranked(table, "correct-rejection")
    return (in_turn + right)[:most]


def _measure(
    model: FilmClassifier,
    pack: Pack,
    table: pd.DataFrame,
    keep: set[int],
    config: ExplanationConfig,
    device: torch.device,
) -> tuple[Localisation, dict[int, NDArray[np.float32]]]:
    """Return the localisation of all films of a table, and the maps of those to keep."""
    parts: list[Localisation] = []
    kept: dict[int, NDArray[np.float32]] = {}
    for start in range(0, max(len(table), 1), CHUNK):
        some = table.iloc[start : start + CHUNK]
        films = pack.images[some["row"].to_numpy()]
        maps = heat_maps(model, films, FRACTURED, config.method, device=device)
        boxes = [pack.boxes_of(row, FRACTURE_BOX) for row in some["row"]]
        windows = [_window(pack, film) for film in some.itertuples()]
        found = localisation(maps, boxes, windows)
        parts.append(Localisation(found.film + start, found.hit, found.mass, found.area))
        kept |= {at: maps[at - start].copy() for at in some.index if at in keep}
    joined = (np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Localisation))
    return Localisation(*joined), kept


def _window(pack: Pack, film: Any) -> tuple[int, int, int, int]:
    """Return where a film lies in its letterbox, xyxy."""
    placement = Placement.of(int(film.height), int(film.width), pack.preparation.size)
    height, width = placement.inner
    return placement.dx, placement.dy, placement.dx + width, placement.dy + height


# --- pictures -------------------------------------------------------------------------------

BOX_COLOUR = "#00e5ff"  # neither grey nor in the heat's colours
DPI = 100
MONTAGE_BYTES = 600_000  # it is embedded in a report


def _heat_colours() -> ListedColormap:
    """Return plasma (even to the eye) whose opacity grows with the heat, so that film shows."""
    colours = colormaps["plasma"](np.linspace(0.15, 1, 256))
    colours[:, 3] = 0.75 * np.linspace(0, 1, 256) ** 0.7
    return ListedColormap(colours)


HEAT = _heat_colours()


@dataclass(frozen=True, eq=False)
class _View:
    """A film (S,S) with its map, boxes, window (xyxy) and what is said of it."""

    stem: str
    age: float
    truth: bool
    probability: float
    threshold: float
    verdict: str
    film: NDArray[np.uint8]
    heat: NDArray[np.float32]
    boxes: NDArray[np.float32]
    window: tuple[int, int, int, int]

    @property
    def file(self) -> str:
        return f"{self.stem}_{self.verdict}.png"

    @property
    def flat(self) -> bool:
        return bool(self.heat.max() == self.heat.min())


def _view(
    pack: Pack, table: pd.DataFrame, at: int, heat: NDArray[np.float32], threshold: float
) -> _View:
    film: Any = table.loc[at]
    return _View(
        stem=film.filestem,
        age=float(film.age),
        truth=bool(film.truth),
        probability=float(film.probability),
        threshold=threshold,
        verdict=film.verdict,
        film=np.asarray(pack.images[film.row]),
        heat=heat,
        boxes=pack.boxes_of(film.row, FRACTURE_BOX),
        window=_window(pack, film),
    )


def _draw_film(view: _View, method: str, path: Path) -> None:
    """Write one film beside the same with its heat map: all of the square that the network saw."""
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
    figure.text(0.012, 0.02, f"The film as the network sees it{boxes}", fontsize=10)
    flat = ": none, the map is flat" if view.flat else ""
    figure.text(0.529, 0.02, f"{METHOD_NAMES[method]}: evidence for a fracture{flat}", fontsize=10)
    _save(figure, path)


def _show(axes: Axes, view: _View, with_heat: bool) -> None:
    axes.imshow(view.film, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    if with_heat:
        axes.imshow(view.heat, cmap=HEAT, vmin=0, vmax=1, interpolation="bilinear")
    for x1, y1, x2, y2 in view.boxes - 0.5:  # imshow puts the centre of the first pixel at 0
        outline = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, lw=1.4, ec=BOX_COLOUR)
        axes.add_patch(outline)
    axes.set_axis_off()


def _colour_bar(figure: Figure, place: tuple[float, float, float, float]) -> None:
    """Draw the heat's colours as they look on a grey film, from none (left) to most."""
    axes = figure.add_axes(place, facecolor="#606060")
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=HEAT, vmin=0, vmax=1, aspect="auto")
    axes.set(xticks=[], yticks=[])
    for x, side, words in ((-0.03, "right", "no heat"), (1.03, "left", "most")):
        axes.text(x, 0.5, words, transform=axes.transAxes, fontsize=9, ha=side, va="center")


def _draw_montage(
    name: str,
    table: pd.DataFrame,
    rows: dict[str, list[int]],
    views: dict[int, _View],
    threshold: float,
    method: str,
    path: Path,
) -> None:
    """Write a row of films per verdict, each film beside its heat map, or words where none is."""
    heights = [2.75 if places else 0.75 for places in rows.values()]
    total = 0.75 + sum(heights)
    figure = Figure(figsize=(12, total), dpi=DPI)
    title = f"{name}: where the network saw evidence for a fracture ({METHOD_NAMES[method]})"
    figure.text(0.01, 1 - 0.3 / total, title, fontsize=14, weight="bold")
    legend = (
        "each film, then with its heat, cut at the film's edge; "
        f"outlined: marked fracture; called a fracture from p {threshold:.3f}"
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
    figure: Figure, verdict: str, views: list[_View], count: int, top: float, total: float
) -> None:
    """Draw the films of a verdict from ``top`` inches of a figure ``total`` inches high down."""
    _, colour, order = VERDICTS[verdict]
    shown = f"{len(views)} of {count}, {order}" if views else "none among the films of this group"
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
