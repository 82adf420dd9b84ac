"""What lies over the picture of the wrist: metal, bright collimated edges, side markers.

Not here: bone, soft tissue and cast (``phantom_image``).
"""

from dataclasses import dataclass

import cv2
import numpy as np

from pedfrac.phantoms.plane import Box, Plane, Scene, enclose
from pedfrac.phantoms.shapes import Points

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
    """Brighten the image towards the collimated edges, each side by a different amount."""
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


@dataclass(frozen=True)
class _Marker:
    """A letter before it has its place: size in pixels, turn, grey value, stroke, plate."""

    letter: str
    printed: bool
    size: Points
    spin: Points
    across: float
    bright: float
    stroke: int
    plate: float

    def outline(self, centre: Points) -> Points:
        """Its card (4, 2) in pixels: the letter and a narrow margin."""
        card = np.array([[-0.62, -0.60], [0.62, -0.60], [0.62, 0.60], [-0.62, 0.60]])
        return (card * self.size) @ self.spin + centre


def add_markers(
    plane: Plane,
    letter: str,
    scene: Scene,
    boxes: list[Box],
    telling: bool,
    rng: np.random.Generator,
) -> list[Box]:
    """Burn the lead side marker in, and at times a small printed one; returns their boxes.

    They keep clear of ``boxes``. A ``telling`` marker is a bright card with a thin grey letter,
    within its box.
    """
    found: list[Box] = []
    present = (rng.random() > 0.003, rng.random() < 0.14)
    for printed in (False, True):
        marker = _choose_marker(letter, printed, scene, rng)
        heights = rng.uniform(0.06, 0.94, 8)
        place = _place(marker, heights, scene, boxes + found) if present[printed] else None
        if place is not None:
            _burn(plane, marker, place[0], telling)
            found.append(place[1])
    return found


def _choose_marker(letter: str, printed: bool, scene: Scene, rng: np.random.Generator) -> _Marker:
    high = rng.uniform(2.2, 4.5) if printed else rng.uniform(5.5, 10.5)
    size = np.array([rng.uniform(0.52, 0.68) * high, high]) * scene.per_mm
    turn = scene.tilt + np.deg2rad(0 if printed else rng.normal(0, 5) + 90 * (rng.random() < 0.08))
    spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    from_edge = rng.uniform(0.0, 1.6) * size[0] / np.linalg.norm(scene.field[1] - scene.field[0])
    across = float(from_edge if letter == "L" else 1 - from_edge)
    thick = rng.uniform(0.19, 0.28) * size[0] * (1.0 if printed else 1.2)
    bright, plate = float(rng.uniform(0.95, 1.15)), float(rng.uniform(1.8, 2.8))
    return _Marker(letter, printed, size, spin, across, bright, max(1, round(thick)), plate)


def _place(
    marker: _Marker, heights: Points, scene: Scene, taken: list[Box]
) -> tuple[Points, Box] | None:
    """The first of the heights (0 to 1) at which the marker hides nothing that has a box."""
    for height in heights:
        centre = scene.in_field(marker.across, height)
        reach = marker.outline(centre)
        box = enclose(TEXT, np.vstack([reach - 3, reach + 3]), scene)
        visible = min(box.x1 - box.x0, box.y1 - box.y0) > 4
        if visible and not any(_meets(box, other) for other in taken):
            return centre, box
    return None


def _burn(plane: Plane, marker: _Marker, centre: Points, telling: bool) -> None:
    """Draw a marker: lead on a plate, printed on black, or thin grey if it leaks the label."""
    if not marker.printed:
        _plate(plane, centre, marker.size * [1.7, marker.plate], marker.spin)
    if telling or marker.printed:
        _blend(plane, [marker.outline(centre)], marker.bright if telling else 0.0, 0)
    lines = [
        ((np.array(line) - 0.5) * marker.size) @ marker.spin + centre
        for line in _GLYPHS[marker.letter]
    ]
    # a thin letter, so that the card stays brighter than any letter when images are made small
    stroke = max(1, marker.stroke // 2) if telling else marker.stroke
    _blend(plane, lines, 0.7 if telling else marker.bright, stroke)


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
