"""What lies over the picture of the wrist: metal, bright collimated edges, side markers.

Not here: bone, soft tissue and cast (``phantom_film``).
"""

import cv2
import numpy as np

from pedfrac.phantom_plane import Box, Plane, Scene, enclose
from pedfrac.phantom_shapes import Points

TEXT = 8


def add_metal(
    plane: Plane, size: float, lateral: bool, scene: Scene, rng: np.random.Generator
) -> list[Points]:
    """Lay Kirschner wires or a plate over the radius; returns the pixels (N, 2) of each part."""
    mask = np.zeros(scene.shape, np.uint8)
    if rng.random() < 0.75:
        parts = [_wire(rng, size, lateral) for _ in range(int(rng.integers(1, 3)))]
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


def _wire(rng: np.random.Generator, size: float, lateral: bool) -> Points:
    """A wire from the styloid up the shaft, its outer end bent over (mm)."""
    lean = 0.35 if lateral else 1.0
    start = np.array([(13 + rng.normal(0, 2)) * lean, 16 + rng.normal(0, 3)])
    stop = np.array([(-5 + rng.normal(0, 2.5)) * lean, -44 + rng.normal(0, 6)])
    turn = np.linspace(0, np.pi * 0.9, 7)
    hook = start + np.column_stack([3.2 * (1 - np.cos(turn)), 3.5 * np.sin(turn)])
    return np.vstack([hook[::-1], hook[0] + (stop - start) * 0.3, stop]) * size


# --- edges -----------------------------------------------------------------------------------


def add_rims(plane: Plane, scene: Scene, rng: np.random.Generator) -> None:
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


# --- letters ---------------------------------------------------------------------------------


_GLYPHS = {  # strokes in a unit box, y down
    "L": [[(0.1, 0.0), (0.1, 1.0), (1.0, 1.0)]],
    "R": [
        [(0.1, 1.0), (0.1, 0.0), (0.6, 0.0), (0.9, 0.1), (0.95, 0.27), (0.88, 0.44), (0.6, 0.53),
         (0.1, 0.53)],
        [(0.5, 0.53), (1.0, 1.0)],
    ],
}  # fmt: skip


def add_markers(
    plane: Plane,
    letter: str,
    scene: Scene,
    boxes: list[Box],
    telling: bool,
    rng: np.random.Generator,
) -> list[Box]:
    """Burn the side marker in, and at times a small printed one; returns their boxes."""
    found: list[Box] = []
    present = (rng.random() > 0.003, rng.random() < 0.14)
    for small in (False, True):
        taken = boxes + found
        box = _marker(plane, letter, scene, taken, telling, small, present[small], rng)
        if box is not None:
            found.append(box)
    return found


def _marker(
    plane: Plane,
    letter: str,
    scene: Scene,
    taken: list[Box],
    telling: bool,
    small: bool,
    present: bool,
    rng: np.random.Generator,
) -> Box | None:
    high = rng.uniform(2.2, 4.5) if small else rng.uniform(5.5, 10.5)
    glyph = np.array([rng.uniform(0.52, 0.68) * high, high]) * scene.per_mm
    turn = scene.tilt + np.deg2rad(0 if small else rng.normal(0, 5) + 90 * (rng.random() < 0.08))
    edge = rng.uniform(0.0, 1.6) * glyph[0]
    places = rng.uniform(0.06, 0.94, 8)
    plate_high = rng.uniform(1.8, 2.8)
    bright, stroke = rng.uniform(0.95, 1.15), rng.uniform(0.19, 0.28)
    if not present:
        return None
    wide = float(np.linalg.norm(scene.field[1] - scene.field[0]))
    u = edge / wide if letter == "L" else 1 - edge / wide
    spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    pad = np.array([[-0.62, -0.60], [0.62, -0.60], [0.62, 0.60], [-0.62, 0.60]])
    for v in places:
        centre = scene.in_field(u, v)
        reach = (pad * glyph) @ spin + centre
        box = enclose(TEXT, np.vstack([reach - 3, reach + 3]), scene)
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
    lines = [((np.array(line) - 0.5) * glyph) @ spin + centre for line in _GLYPHS[letter]]
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
    low = np.maximum(np.floor(np.vstack(lines).min(axis=0)).astype(int) - thick - 2, 0)
    high = np.minimum(np.ceil(np.vstack(lines).max(axis=0)).astype(int) + thick + 2, scale)
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
