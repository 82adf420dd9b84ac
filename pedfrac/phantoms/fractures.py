"""Injuries of a phantom wrist: from a faint buckle to a slipped epiphysis, and other findings.

How visible a fracture is depends on its severity: a dataset holds obvious and invisible ones.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from pedfrac.phantoms.shapes import (
    LATERAL,
    Anatomy,
    Fracture,
    Growth,
    Motion,
    Shape,
    Stroke,
    Tube,
    ellipse,
    rectangle,
)


def break_bone(
    anatomy: Anatomy,
    tube: Tube,
    fracture: Fracture,
    grown: Growth,
    view: int,
    rng: np.random.Generator,
) -> Motion | None:
    """Apply one fracture to a drawn bone and mark its region; returns the hand's motion."""
    if fracture.kind == "avulsion":
        _avulse(anatomy, tube, fracture, grown)
        return None
    if fracture.kind == "physeal" and len(anatomy.bones) > 2:
        return _slip(anatomy, tube, fracture, grown, view)
    place = float(tube.y[-1]) - fracture.place * grown.size
    left, right = tube.at(place)
    strength = fracture.severity * (1 - 0.5 * fracture.healing)
    move = None
    if fracture.kind == "buckle":
        _buckle(anatomy, place, left, right, fracture.side, strength, grown.size)
    else:
        move = _displace(anatomy, place, left, right, fracture, grown, view)
        _cleft(anatomy, place, left, right, fracture, strength, rng)
    if fracture.healing > 0:
        _heal(anatomy, place, left, right, fracture, grown.size)
    high = (4.0 + 1.8 * fracture.severity) * grown.size
    bulge = 2.8 if fracture.kind == "buckle" else 0.5
    wide = 0.7 + (bulge * fracture.severity + 1.0 * fracture.healing) * grown.size
    region = rectangle(left - wide, right + wide, place - high, place + high)
    if move is not None:  # both fragments: where the far one was, and where it went
        region = np.vstack([region, replace(move, blend=0.0)(region)])
    anatomy.mark("fracture", region)
    return move


def _buckle(
    anatomy: Anatomy, y: float, left: float, right: float, side: int, strength: float, size: float
) -> None:
    """Bulge the cortices outwards around y and lay a faint dense band across."""
    middle, spread = (left + right) / 2, 2.1 * size
    for index, shape in enumerate(anatomy.bones[:2]):  # cortex and marrow of the long bone
        near = np.exp(-(((shape.outline[:, 1] - y) / spread) ** 2))
        out = np.sign(shape.outline[:, 0] - middle)
        reach = np.where(out == side, 1.0, 0.45) * (0.3 + 2.7 * strength) * size
        moved = shape.outline + np.column_stack([near * out * reach, np.zeros(len(near))])
        anatomy.bones[index] = Shape(moved, shape.density, shape.roundness)
    band = np.array([[left, y], [right, y + 0.4]])
    anatomy.strokes.append(Stroke(band, 2.2 * size, 0.06 + 0.44 * strength))


def _displace(
    anatomy: Anatomy,
    y: float,
    left: float,
    right: float,
    fracture: Fracture,
    grown: Growth,
    view: int,
) -> Motion | None:
    """Turn and shift the far fragment; small breaks stay in place."""
    loose = max(0.0, fracture.severity - 0.25) * (1 - 0.6 * fracture.healing)
    angle = fracture.side * loose * (0.52 if view == LATERAL else 0.26)
    slide = 0.0
    if fracture.kind == "transverse":
        slide = fracture.side * max(0.0, fracture.severity - 0.4) * (right - left) * 0.6
    if not angle and not slide:
        return None
    move = Motion(((left + right) / 2, y), angle, slide * (1 - 0.4 * fracture.healing))
    for index, shape in enumerate(anatomy.bones):
        anatomy.bones[index] = Shape(move(shape.outline), shape.density, shape.roundness)
    for index, stroke in enumerate(anatomy.strokes):
        anatomy.strokes[index] = Stroke(move(stroke.line), stroke.width, stroke.gain)
    return Motion(move.pivot, move.angle, move.shift, blend=6.0 * grown.size)


def _cleft(
    anatomy: Anatomy,
    y: float,
    left: float,
    right: float,
    fracture: Fracture,
    strength: float,
    rng: np.random.Generator,
) -> None:
    """The dark jagged line: right across, or from one cortex inwards in a greenstick."""
    count = 9
    reach = 1.0 if fracture.kind == "transverse" else 0.55
    start, stop = (right + 0.6, left - 0.6) if fracture.side > 0 else (left - 0.6, right + 0.6)
    x = np.linspace(start, start + (stop - start) * reach, count)
    slant = rng.normal(0, 0.12) * (x - x.mean())
    jag = rng.normal(0, 0.35, count)
    line = np.column_stack([x, y + slant + jag])
    gain = -(0.16 + 0.64 * strength) * (1 - 0.6 * fracture.healing)
    anatomy.strokes.append(Stroke(line, 0.6 + 1.5 * strength, gain))
    beyond = line + np.array([0, 0.9])
    anatomy.strokes.append(Stroke(beyond, 0.7, 0.10 * strength))


def _slip(
    anatomy: Anatomy,
    tube: Tube,
    fracture: Fracture,
    grown: Growth,
    view: int,
) -> Motion:
    """Shift the epiphysis on a widened plate, with a crack into the corner of the metaphysis."""
    left, right = tube.at(tube.y[-1])
    top, width, size = float(tube.y[-1]), right - left, grown.size
    strength = fracture.severity * (1 - 0.5 * fracture.healing)
    share = 0.34 if view == LATERAL else 0.2
    offset = np.array([fracture.side * strength * share * width, (0.2 + 0.9 * strength) * size])
    for index in (2, 3):  # shell and body of the epiphysis
        shape = anatomy.bones[index]
        anatomy.bones[index] = Shape(shape.outline + offset, shape.density, shape.roundness)
    corner = right if fracture.side > 0 else left
    inward = -fracture.side * 0.33 * width
    crack = np.array([[corner, top - 7 * size], [corner + inward, top - 0.2]])
    anatomy.strokes.append(Stroke(crack, 0.5 + 0.5 * strength, -(0.15 + 0.6 * strength)))
    reach = anatomy.bones[2].outline
    low, high = top - 7.5 * size, min(float(reach[:, 1].max()), top + 8 * size)
    near, far = min(left, reach[:, 0].min()) - 1, max(right, reach[:, 0].max()) + 1
    anatomy.mark("fracture", rectangle(near, far, low, high))
    return Motion(((left + right) / 2, top), 0.0, float(offset[0]), blend=5.0 * size)


def _avulse(anatomy: Anatomy, tube: Tube, fracture: Fracture, grown: Growth) -> None:
    """A small fragment off the ulnar styloid."""
    left, _ = tube.at(tube.y[-1])
    size = grown.size
    x, y = left + 0.5 * size, float(tube.y[-1]) + 6 * size
    if len(anatomy.bones) > 2:
        cap = anatomy.bones[2].outline
        x, y = cap[np.argmax(cap[:, 1])] + np.array([-0.4, 1.0]) * size
    radius = size * (0.6 + 0.7 * fracture.severity)
    outline = ellipse(x, y, 1.1 * radius, 1.6 * radius)
    anatomy.bones.append(Shape(outline, 0.25 + 0.5 * fracture.severity, 1.2 * size))
    reach = 4.2 * size
    anatomy.mark("fracture", rectangle(x - reach, x + reach, y - reach, y + reach))


def _heal(
    anatomy: Anatomy, y: float, left: float, right: float, fracture: Fracture, size: float
) -> None:
    """Callus along the cortices and sclerosis across, growing with healing."""
    thick = (0.5 + 1.6 * fracture.healing) * size
    for x in (left, right):
        oval = ellipse(x, y, thick, 9 * size)
        anatomy.bones.append(Shape(oval, 0.10 + 0.16 * fracture.healing, thick))
        if fracture.healing > 0.45:
            anatomy.mark("periosteal", oval)
    band = np.array([[left, y], [right, y]])
    anatomy.strokes.append(Stroke(band, 4.5 * size, 0.12 * fracture.healing))


def _anomaly(anatomy: Anatomy, grown: Growth) -> None:
    """A bone cyst in the metaphysis of the radius."""
    size = grown.size
    cyst = ellipse(1.0 * size, -17 * size, 0.22 * grown.width, 7 * size)
    anatomy.bones.append(Shape(cyst, -0.22, 3 * size))
    anatomy.mark("anomaly", cyst)


def _swelling(anatomy: Anatomy, grown: Growth) -> None:
    """Soft tissue swollen around the distal forearm, towards thumb or palm."""
    bulge = np.exp(-((anatomy.soft[:, 1] / (24 * grown.size) + 0.2) ** 2))
    anatomy.soft[:, 0] += bulge * 4.5 * grown.size * (anatomy.soft[:, 0] > 0)
    swollen = anatomy.soft[(bulge > 0.4) & (anatomy.soft[:, 0] > 0)]
    anatomy.mark("swelling", np.vstack([swollen, swollen - [9 * grown.size, 0]]))


def _pronator(anatomy: Anatomy, grown: Growth) -> None:
    """The fat stripe before the pronator quadratus, lifted off the bone (lateral view)."""
    y = np.linspace(-48, -4, 12) * grown.size
    x = (0.42 * grown.width) + 3.2 * grown.size * np.sin(np.linspace(0.3, 2.9, 12))
    stripe = np.vstack([np.column_stack([x, y]), np.column_stack([x + 1.2, y])[::-1]])
    anatomy.bones.append(Shape(stripe, -0.10, 0.5))
    anatomy.mark("pronator", np.vstack([stripe - [4 * grown.size, 0], stripe]))


def _lesion(density: float, anatomy: Anatomy, grown: Growth) -> None:
    """A large round lesion of either density in the metaphysis of the radius."""
    size = grown.size
    outline = ellipse(0.0, -20 * size, 0.42 * grown.width, 11 * size)
    anatomy.bones.append(Shape(outline, density, 3 * size))
    anatomy.mark("lesion", outline)


FINDINGS: dict[str, Callable[[Anatomy, Growth], None]] = {
    "anomaly": _anomaly,
    "swelling": _swelling,
    "pronator": _pronator,
    "dense lesion": partial(_lesion, 0.9),
    "lucent lesion": partial(_lesion, -0.55),
}
