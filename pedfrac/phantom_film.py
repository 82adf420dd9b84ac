"""From a drawn wrist to a 16-bit film: projection, exposure, cast, metal, marker, noise, boxes.

Not here: what the wrist looks like at an age (``phantom_anatomy``) or which films there are
(``phantoms``). Pixels are made for tests and demonstrations; nothing about them is calibrated.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pedfrac.phantom_anatomy import (
    LATERAL,
    Fracture,
    Points,
    Shape,
    Stroke,
    Subject,
    build,
    growth,
)

Plane = NDArray[np.float32]
Film = NDArray[np.uint16]

PIXEL_MM = 0.144
WIDTH_RANGE, HEIGHT_RANGE = (248, 1449), (472, 1697)
# Regions of the anatomy and the YOLO classes that their boxes get.
CLASSES = {"anomaly": 0, "fracture": 3, "metal": 4, "periosteal": 5, "pronator": 6, "swelling": 7}
TEXT = 8
_STEP = 17  # 3,856 grey levels, as many as real films have after their stretch to 16 bits


@dataclass(frozen=True)
class FilmSpec:
    """All that decides one film: whom, which view, what is on it, and the seed of its exposure."""

    subject: Subject
    view: int
    laterality: str
    seed: tuple[int, ...]
    fractures: tuple[Fracture, ...] = ()
    findings: tuple[str, ...] = ()
    cast: bool = False
    metal: bool = False
    osteopenia: bool = False


@dataclass(frozen=True)
class Box:
    """A box in pixels of the film; ``label`` is its YOLO class."""

    label: int
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class _Scene:
    """The film's plane: (height, width) in pixels, pixels per mm, mm to pixels, exposed field."""

    shape: tuple[int, int]
    per_mm: float
    to_pixels: NDArray[np.float64]
    field: Points
    tilt: float

    def pixels(self, points: Points) -> Points:
        """Points of the anatomy (N, 2) in mm to pixels."""
        return points @ self.to_pixels[:, :2].T + self.to_pixels[:, 2]

    def in_field(self, u: float, v: float) -> Points:
        """A place in the exposed field, u and v from 0 to 1, in pixels."""
        first, right, _, down = self.field
        return first + u * (right - first) + v * (down - first)


def render(spec: FilmSpec, scale: float = 1.0, shortcut: bool = False) -> tuple[Film, list[Box]]:
    """Expose one film; returns (height, width) uint16 and its boxes. Pure: same in, same out.

    ``scale`` is the linear size relative to real films; small films are drawn larger and then
    averaged down. With ``shortcut`` the marker of a fractured film is printed in inverse, inside
    the box it has anyway.
    """
    finer = max(1, int(np.ceil(0.5 / scale)))
    rng = np.random.default_rng(spec.seed)
    anatomy = build(spec.subject, spec.view, spec.fractures, spec.findings)
    scene = _scene(spec, scale * finer, finer, rng)
    bone = _bone_plane(anatomy.bones, anatomy.strokes, scene, rng)
    plane = _beam(bone, anatomy.soft, spec, scene, rng)
    metal = _add_metal(plane, spec, scene, rng) if spec.metal else []
    boxes = [
        _enclose(CLASSES[name], scene.pixels(region), scene)
        for name, regions in anatomy.regions.items()
        for region in regions
    ]
    boxes += [_enclose(CLASSES["metal"], part, scene) for part in metal]
    _add_rims(plane, scene, rng)
    telling = shortcut and bool(spec.fractures)
    boxes += _add_markers(plane, spec, scene, boxes, telling, rng)
    film = _digitise(plane, scene, finer, rng)
    return film, [_shrink(box, finer) for box in boxes]


def _shrink(box: Box, finer: int) -> Box:
    return Box(box.label, *(edge / finer for edge in (box.x0, box.y0, box.x1, box.y1)))


def _enclose(label: int, points: Points, scene: _Scene) -> Box:
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    height, width = scene.shape
    x0, x1 = np.clip([x0, x1], 0, width)
    y0, y1 = np.clip([y0, y1], 0, height)
    return Box(label, float(x0), float(y0), float(x1), float(y1))


# --- geometry --------------------------------------------------------------------------------


def _scene(spec: FilmSpec, scale: float, multiple: int, rng: np.random.Generator) -> _Scene:
    """Choose the collimated field, how it and the arm are turned, and the film around it."""
    size = growth(spec.subject.age, spec.subject.sex).size
    per_mm = scale / PIXEL_MM
    wide = (66 if spec.view == LATERAL else 78) * size**0.8 * rng.lognormal(0, 0.09)
    high = 146 * size**0.8 * rng.lognormal(0, 0.13)
    wild = rng.random() < 0.05
    tilt = float(np.deg2rad(rng.uniform(-38, 38) if wild else rng.normal(0, 1.6)))
    arm = tilt * (0.9 if wild else 1) + float(np.deg2rad(rng.normal(0, 4)))
    wide, high = np.clip([wide, high], [38, 104 * size], [120, 215])
    spin = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [wide / 2, high / 2] * per_mm
    field = corners @ spin.T
    extent = np.ptp(field, axis=0)
    lowest, highest = np.array([WIDTH_RANGE, HEIGHT_RANGE]).T * scale / multiple
    extent = np.clip(np.round(extent / multiple), np.ceil(lowest), np.floor(highest))
    width, height = (int(side) * multiple for side in extent)
    field = field + np.array([width / 2, height / 2])
    place = np.array([rng.normal(0, 0.035) * wide, rng.uniform(-0.10, 0.04) * high]) * per_mm
    origin = spin @ place + [width / 2, height / 2]
    mirror = 1 if spec.laterality == "L" else -1
    axes = np.array([[np.cos(arm), np.sin(arm)], [np.sin(arm), -np.cos(arm)]]) * per_mm
    axes[:, 0] *= mirror
    return _Scene((height, width), per_mm, np.column_stack([axes, origin]), field, tilt)


def _window(points: Points, scene: _Scene, margin: int) -> tuple[slice, slice] | None:
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - margin, 0)
    high = np.ceil(points.max(axis=0)).astype(int) + margin
    high = np.minimum(high, [scene.shape[1], scene.shape[0]])
    if (high <= low).any():
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


def _filled(points: Points, shape: tuple[int, int]) -> NDArray[np.uint8]:
    mask = np.zeros(shape, np.uint8)
    return cv2.fillPoly(mask, [np.round(points * 8).astype(np.int32)], 255, shift=3)


def _chord(depth: Plane, roundness: float) -> Plane:
    """Path through a cylinder of radius ``roundness`` at a depth below its edge, 0 to 1."""
    hollow = 1 - np.minimum(depth * np.float32(1 / max(roundness, 0.5)), np.float32(1))
    return np.sqrt(1 - hollow * hollow)


# --- what the beam meets ---------------------------------------------------------------------


def _bone_plane(
    shapes: list[Shape], strokes: list[Stroke], scene: _Scene, rng: np.random.Generator
) -> Plane:
    """Sum of all bone along the beam, with trabeculae; about 0.5 in a shaft, 1 in its cortex."""
    plane = np.zeros(scene.shape, np.float32)
    for shape in shapes:
        points = scene.pixels(shape.outline)
        window = _window(points, scene, 2)
        if window is None:
            continue
        part = plane[window]
        mask = _filled(points - [window[1].start, window[0].start], part.shape)
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
        part += np.float32(shape.density) * _chord(depth, shape.roundness * scene.per_mm)
    for stroke in strokes:
        _draw_stroke(plane, stroke, scene)
    window = _window(scene.pixels(np.vstack([s.outline for s in shapes])), scene, 2)
    if window is not None:
        part = plane[window]
        part *= 1 + np.float32(0.13) * _tile(_trabeculae(), part.shape, rng)
    np.maximum(plane, 0, out=plane)
    return plane


def _draw_stroke(plane: Plane, stroke: Stroke, scene: _Scene) -> None:
    points = scene.pixels(stroke.line)
    soft = max(0.8, 0.35 * stroke.width * scene.per_mm)
    window = _window(points, scene, int(stroke.width * scene.per_mm + 3 * soft) + 2)
    if window is None:
        return
    part = plane[window]
    mask = np.zeros(part.shape, np.uint8)
    thick = max(1, round(stroke.width * scene.per_mm))
    line = np.round((points - [window[1].start, window[0].start]) * 8).astype(np.int32)
    cv2.polylines(mask, [line], False, 255, thick, cv2.LINE_AA, shift=3)
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), soft)
    part *= 1 + np.float32(stroke.gain / 255) * blurred


def _beam(
    bone: Plane, skin: Points, spec: FilmSpec, scene: _Scene, rng: np.random.Generator
) -> Plane:
    """Grey value 0 to 1 of air, soft tissue, cast and bone under an uneven exposure."""
    size = growth(spec.subject.age, spec.subject.sex).size
    air, tissue = rng.uniform(0.06, 0.14), rng.uniform(0.19, 0.26)
    contrast = rng.uniform(0.24, 0.34) * (0.72 if spec.osteopenia else 1.0)
    coarse = 4
    shape = (scene.shape[0] // coarse + 1, scene.shape[1] // coarse + 1)
    points = scene.pixels(skin)
    depth = cv2.distanceTransform(_filled(points / coarse, shape), cv2.DIST_L2, 5)
    depth *= np.float32(coarse / scene.per_mm)
    fat = np.clip((depth - 1.5 * size) / (3.0 * size), 0, 1)
    smooth = air + tissue * (0.78 * _chord(depth, 15 * size) + 0.22 * fat)
    if spec.cast:
        smooth += _cast(skin, size, coarse, shape, scene, rng)
    rows, columns = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    smooth *= 1 + rng.normal(0, 0.05) * rows + rng.normal(0, 0.05) * columns
    smooth *= 1 + 0.02 * _tile(_clouds(), shape, rng)
    blur = rng.uniform(1.2, 2.2) if spec.cast else rng.uniform(0.4, 0.8)
    plane = cv2.GaussianBlur(bone, (0, 0), max(0.3, blur * scene.per_mm * PIXEL_MM))
    plane *= np.float32(contrast)
    size_xy = (shape[1] * coarse, shape[0] * coarse)
    full = cv2.resize(smooth.astype(np.float32), size_xy, interpolation=cv2.INTER_LINEAR)
    plane += full[: scene.shape[0], : scene.shape[1]]
    return plane


def _cast(
    skin: Points,
    size: float,
    coarse: int,
    shape: tuple[int, int],
    scene: _Scene,
    rng: np.random.Generator,
) -> Plane:
    """Plaster or fibreglass around the forearm up to the palm, wrinkled, dense at its edges."""
    thick, gap = rng.uniform(2.5, 5.0), rng.uniform(0.5, 2.5)
    end = rng.uniform(30, 52) * size
    under = skin[skin[:, 1] < end]
    middle = under[:, 0].mean()
    side = np.sign(under[:, 0] - middle)
    if rng.random() < 0.3:  # a slab on one side only
        side = np.where(side > 0, side, 0.25)
    total = np.zeros(shape, np.float32)
    for offset, sign in ((gap + thick, 1), (gap, -1)):
        shell = under + np.column_stack([side * offset, np.zeros(len(under))])
        depth = cv2.distanceTransform(
            _filled(scene.pixels(shell) / coarse, shape), cv2.DIST_L2, 5
        ) * np.float32(coarse / scene.per_mm)
        total += sign * _chord(depth, 22 * size + offset)
    wrinkles = 1 + 0.25 * _tile(_clouds(), shape, rng)
    layers = np.float32(0.06) * (total > 0)
    return (np.float32(rng.uniform(0.18, 0.38)) * total + layers) * wrinkles


def _add_metal(
    plane: Plane, spec: FilmSpec, scene: _Scene, rng: np.random.Generator
) -> list[Points]:
    """Lay Kirschner wires or a plate over the radius; returns the pixels (N, 2) of each part."""
    size = growth(spec.subject.age, spec.subject.sex).size
    mask = np.zeros(scene.shape, np.uint8)
    if rng.random() < 0.75:
        parts = [_wire(rng, size, spec.view) for _ in range(int(rng.integers(1, 3)))]
        widths = [rng.uniform(1.2, 1.7)] * len(parts)
    else:
        y = np.linspace(-48, -8, 6) * size
        parts, widths = [np.column_stack([rng.normal(1.5, 0.5) + 0 * y, y])], [7.0 * size]
    drawn = []
    for part, width in zip(parts, widths, strict=True):
        points = scene.pixels(part)
        thick = max(1, round(width * scene.per_mm))
        line = [np.round(points * 8).astype(np.int32)]
        cv2.polylines(mask, line, False, 255, thick, cv2.LINE_AA, shift=3)
        half = thick / 2 + 1
        drawn.append(np.vstack([points - half, points + half]))
    cover = cv2.GaussianBlur(mask, (3, 3), 0).astype(np.float32) / 255
    plane += cover * (np.float32(rng.uniform(0.82, 0.95)) - plane)
    return drawn


def _wire(rng: np.random.Generator, size: float, view: int) -> Points:
    """A wire from the styloid up the shaft, its outer end bent over (mm)."""
    lean = 0.35 if view == LATERAL else 1.0
    start = np.array([(13 + rng.normal(0, 2)) * lean, 16 + rng.normal(0, 3)])
    stop = np.array([(-5 + rng.normal(0, 2.5)) * lean, -44 + rng.normal(0, 6)])
    turn = np.linspace(0, np.pi * 0.9, 7)
    hook = start + np.column_stack([3.2 * (1 - np.cos(turn)), 3.5 * np.sin(turn)])
    return np.vstack([hook[::-1], hook[0] + (stop - start) * 0.3, stop]) * size


# --- the edges and the letters ---------------------------------------------------------------


def _add_rims(plane: Plane, scene: _Scene, rng: np.random.Generator) -> None:
    """Brighten the film towards the collimated edges, each side by its own measure."""
    coarse = 4
    shape = (scene.shape[0] // coarse + 1, scene.shape[1] // coarse + 1)
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32) * coarse
    centre = scene.field.mean(axis=0)
    glow = np.zeros(shape, np.float32)
    strength = rng.uniform(0.05, 0.55, 4) * (rng.random() > 0.12)
    for side in range(4):
        first, second = scene.field[side], scene.field[(side + 1) % 4]
        along = (second - first) / np.linalg.norm(second - first)
        inward = np.array([-along[1], along[0]])
        inward *= np.sign(inward @ (centre - first))
        inside = (columns - first[0]) * inward[0] + (rows - first[1]) * inward[1]
        reach = rng.uniform(0.7, 2.6) * scene.per_mm
        glow += strength[side] * np.exp(-np.maximum(inside, 0) / reach)
        shade = rng.uniform(0.0, 0.22)  # the beam falls off a little before the edge
        glow *= 1 - shade * np.exp(-np.maximum(inside, 0) / (5 * reach))
    full = cv2.resize(glow, (shape[1] * coarse, shape[0] * coarse))
    plane += full[: scene.shape[0], : scene.shape[1]]


_GLYPHS = {  # strokes in a unit box, y down
    "L": [[(0.1, 0.0), (0.1, 1.0), (1.0, 1.0)]],
    "R": [
        [(0.1, 1.0), (0.1, 0.0), (0.6, 0.0), (0.9, 0.1), (0.95, 0.27), (0.88, 0.44), (0.6, 0.53),
         (0.1, 0.53)],
        [(0.5, 0.53), (1.0, 1.0)],
    ],
}  # fmt: skip


def _add_markers(
    plane: Plane,
    spec: FilmSpec,
    scene: _Scene,
    boxes: list[Box],
    telling: bool,
    rng: np.random.Generator,
) -> list[Box]:
    """Burn the side marker in, and at times a small printed one; returns their boxes."""
    found: list[Box] = []
    present = (rng.random() > 0.003, rng.random() < 0.14)
    for small in (False, True):
        taken = boxes + found
        box = _marker(plane, spec, scene, taken, telling, small, present[small], rng)
        if box is not None:
            found.append(box)
    return found


def _marker(
    plane: Plane,
    spec: FilmSpec,
    scene: _Scene,
    taken: list[Box],
    telling: bool,
    small: bool,
    present: bool,
    rng: np.random.Generator,
) -> Box | None:
    high = rng.uniform(2.2, 4.5) if small else rng.uniform(7.0, 12.5)
    glyph = np.array([rng.uniform(0.52, 0.68) * high, high]) * scene.per_mm
    turn = scene.tilt + np.deg2rad(0 if small else rng.normal(0, 5) + 90 * (rng.random() < 0.08))
    edge = rng.uniform(0.0, 1.6) * glyph[0]
    places = rng.uniform(0.06, 0.94, 8)
    plate_high = rng.uniform(1.8, 2.8)
    bright, stroke = rng.uniform(0.95, 1.15), rng.uniform(0.15, 0.24)
    if not present:
        return None
    wide = float(np.linalg.norm(scene.field[1] - scene.field[0]))
    u = edge / wide if spec.laterality == "L" else 1 - edge / wide
    spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    pad = np.array([[-0.62, -0.60], [0.62, -0.60], [0.62, 0.60], [-0.62, 0.60]])
    for v in places:
        centre = scene.in_field(u, v)
        reach = (pad * glyph) @ spin + centre
        box = _enclose(TEXT, np.vstack([reach - 3, reach + 3]), scene)
        if box.x1 - box.x0 > 4 and box.y1 - box.y0 > 4 and not any(_meets(box, b) for b in taken):
            break
    else:
        return None
    if not small:
        _plate(plane, centre, glyph * [1.7, plate_high], spin)
    card, ink = (bright, 0.02) if telling else (None, bright)
    if small and not telling:
        card = 0.0
    if card is not None:
        _blend(plane, [reach], card, 0)
    lines = [((np.array(line) - 0.5) * glyph) @ spin + centre for line in _GLYPHS[spec.laterality]]
    _blend(plane, lines, ink, max(1, round(stroke * glyph[0] * (1.0 if small else 1.2))))
    return box


def _meets(a: Box, b: Box) -> bool:
    return a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1


def _plate(plane: Plane, centre: Points, extent: Points, spin: Points) -> None:
    """The marker's plastic plate: a faint lighter rectangle with a hole."""
    corners = np.array([[-0.5, -0.62], [0.5, -0.62], [0.5, 0.38], [-0.5, 0.38]]) * extent
    hole = np.array([0.25, -0.5]) * extent + 0.06 * extent[0] * np.array(
        [[np.cos(t), np.sin(t)] for t in np.linspace(0, 6.2, 12)]
    )
    mask = np.zeros(plane.shape, np.uint8)
    for part, value in ((corners, 255), (hole, 0)):
        points = np.round((part @ spin + centre) * 8).astype(np.int32)
        cv2.fillPoly(mask, [points], value, cv2.LINE_AA, shift=3)
    plane += mask * np.float32(0.035 / 255)


def _blend(plane: Plane, lines: list[Points], value: float, thick: int) -> None:
    """Draw polylines (or, with ``thick`` 0, filled outlines) of one grey value into the plane."""
    scale = np.array(plane.shape[::-1])
    low = np.maximum(np.floor(min_of(lines)).astype(int) - thick - 2, 0)
    high = np.minimum(np.ceil(max_of(lines)).astype(int) + thick + 2, scale)
    if (high <= low).any():
        return
    part = plane[low[1] : high[1], low[0] : high[0]]
    mask = np.zeros(part.shape, np.uint8)
    points = [np.round((line - low) * 8).astype(np.int32) for line in lines]
    if thick:
        cv2.polylines(mask, points, False, 255, thick, cv2.LINE_AA, shift=3)
    else:
        cv2.fillPoly(mask, points, 255, cv2.LINE_AA, shift=3)
    part += mask * np.float32(1 / 255) * (np.float32(value) - part)


def min_of(lines: list[Points]) -> Points:
    """Smallest x and y of several lines (N, 2)."""
    return np.vstack(lines).min(axis=0)


def max_of(lines: list[Points]) -> Points:
    """Largest x and y of several lines (N, 2)."""
    return np.vstack(lines).max(axis=0)


# --- noise and numbers -----------------------------------------------------------------------


@lru_cache(maxsize=1)
def _grain() -> Plane:
    """Quantum noise of unit variance, neighbouring pixels correlated as in real films."""
    white = np.random.default_rng(1).standard_normal((1500, 1500), np.float32)
    return _normal(cv2.GaussianBlur(white, (3, 3), 0.62, borderType=cv2.BORDER_REFLECT))


@lru_cache(maxsize=1)
def _trabeculae() -> Plane:
    """A lattice of fine lines, mostly along y."""
    rng = np.random.default_rng(2)
    white = rng.standard_normal((1500, 1500), np.float32)
    along = _normal(cv2.GaussianBlur(white, (0, 0), sigmaX=1.1, sigmaY=4.5))
    across = _normal(cv2.GaussianBlur(white[::-1], (0, 0), sigmaX=3.0, sigmaY=1.1))
    coarse = _normal(cv2.GaussianBlur(white[:, ::-1], (0, 0), 3.0))
    return _normal(along + 0.5 * across + 0.4 * coarse)


@lru_cache(maxsize=1)
def _clouds() -> Plane:
    """Slow unevenness, for exposure and plaster."""
    white = np.random.default_rng(3).standard_normal((150, 150), np.float32)
    return _normal(cv2.resize(cv2.GaussianBlur(white, (0, 0), 1.5), (900, 900)))


def _normal(plane: Plane) -> Plane:
    return (plane - plane.mean()) / plane.std()


def _tile(texture: Plane, shape: tuple[int, int], rng: np.random.Generator) -> Plane:
    """A piece of a texture (repeated where too small) at a random place, perhaps mirrored."""
    flip, top, left = rng.integers(0, 2), rng.random(), rng.random()
    repeats = [-(-side // have) for side, have in zip(shape, texture.shape, strict=True)]
    if max(repeats) > 1:
        texture = np.tile(texture, repeats)
    row = int(top * (texture.shape[0] - shape[0] + 1))
    column = int(left * (texture.shape[1] - shape[1] + 1))
    piece = texture[row : row + shape[0], column : column + shape[1]]
    return piece[:, ::-1] if flip else piece


def _digitise(plane: Plane, scene: _Scene, finer: int, rng: np.random.Generator) -> Film:
    """Add quantum noise, cut to the exposed field, shrink, and spread over 16 bits."""
    noise = np.float32(rng.uniform(0.018, 0.028))
    plane *= 1 + noise * _tile(_grain(), scene.shape, rng)
    exposed = np.zeros(scene.shape, np.uint8)
    cv2.fillPoly(exposed, [np.round(scene.field * 8).astype(np.int32)], 255, cv2.LINE_AA, shift=3)
    plane *= exposed
    if finer > 1:
        size = (scene.shape[1] // finer, scene.shape[0] // finer)
        plane = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
    levels = 65535 // _STEP
    np.clip(plane * np.float32(levels / 255), 0, levels, out=plane)
    return plane.astype(np.uint16) * np.uint16(_STEP)
