"""The growing wrist as flat shapes in millimetres: forearm, carpus, hand and skin by age.

Not here: injuries (``phantom_fractures``), pixels, exposure or noise (``phantom_image``). It is a
drawing that ages in the right order, not an atlas: no distance in it is a measurement.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from pedfrac.phantoms.fractures import FINDINGS, break_bone
from pedfrac.phantoms.shapes import (
    FRONTAL,
    LATERAL,
    OBLIQUE,
    Anatomy,
    Fracture,
    Growth,
    Motion,
    Points,
    Shape,
    Stroke,
    Subject,
    Tube,
    chaikin,
    spongy,
)

# Bone age (years, boys) at which the ossification centre of each carpal bone is first seen.
CARPAL_ONSET = {
    "capitate": 0.25,
    "hamate": 0.4,
    "triquetrum": 2.5,
    "lunate": 3.4,
    "scaphoid": 4.8,
    "trapezium": 5.0,
    "trapezoid": 5.4,
    "pisiform": 9.5,
}

# Centre x, y, width, height (mm) and tilt (degrees) of the grown bone, frontal and lateral.
_CARPAL_FRONTAL = {
    "capitate": (-7.0, 29.6, 12.5, 22.0, -3.0),
    "hamate": (-18.5, 34.5, 13.5, 17.0, 15.0),
    "triquetrum": (-22.0, 22.5, 12.0, 13.0, 20.0),
    "lunate": (-10.0, 13.5, 14.5, 10.0, 12.0),
    "scaphoid": (4.2, 22.0, 20.0, 10.5, 52.0),
    "trapezium": (14.5, 37.0, 13.0, 13.5, -15.0),
    "trapezoid": (4.2, 37.5, 10.0, 11.5, 5.0),
    "pisiform": (-24.0, 24.5, 8.0, 9.5, 0.0),
}
_CARPAL_LATERAL = {
    "capitate": (-0.5, 28.5, 14.0, 21.0, -4.0),
    "hamate": (-2.0, 33.5, 14.0, 15.0, 0.0),
    "triquetrum": (-3.5, 20.0, 12.0, 12.5, 0.0),
    "lunate": (0.0, 12.0, 13.0, 12.0, -10.0),
    "scaphoid": (5.0, 20.0, 20.0, 10.0, 48.0),
    "trapezium": (11.0, 34.5, 13.0, 12.0, 0.0),
    "trapezoid": (3.0, 37.5, 11.0, 10.5, 0.0),
    "pisiform": (12.0, 21.0, 8.5, 9.0, 0.0),
}

# Outlines in a unit box (before tilt), for bones whose grown form is not a rounded block.
_CARPAL_FORMS = {
    "capitate": [(-0.28, -0.5), (0.2, -0.5), (0.42, -0.32), (0.36, 0.02), (0.5, 0.3), (0.46, 0.5),
                 (-0.44, 0.5), (-0.5, 0.2), (-0.36, -0.05), (-0.44, -0.3)],
    "hamate": [(0.1, -0.52), (0.4, -0.4), (0.5, 0.05), (0.46, 0.5), (-0.42, 0.5), (-0.52, 0.25),
               (-0.3, -0.15)],
    "lunate": [(-0.5, -0.15), (-0.3, -0.5), (0.3, -0.5), (0.52, -0.1), (0.45, 0.42), (0.2, 0.4),
               (-0.1, 0.22), (-0.4, 0.45)],
    "scaphoid": [(-0.5, -0.2), (-0.3, -0.5), (0.05, -0.36), (0.35, -0.5), (0.52, -0.1), (0.45, 0.4),
                 (0.1, 0.42), (-0.2, 0.36), (-0.45, 0.35)],
    "trapezium": [(-0.5, -0.4), (0.2, -0.5), (0.5, -0.2), (0.42, 0.45), (0.1, 0.32), (-0.42, 0.5)],
    "triquetrum": [(-0.45, -0.2), (-0.1, -0.5), (0.45, -0.4), (0.5, 0.15), (0.1, 0.52),
                   (-0.42, 0.4)],
}  # fmt: skip

# Base x, y (mm), direction (degrees from +y to the thumb), length and width (mm): thumb first.
_METACARPALS_FRONTAL = (
    (20.5, 43.0, 36.0, 37.0, 9.5),
    (5.5, 45.5, 7.0, 55.0, 8.8),
    (-6.0, 46.0, 0.0, 53.0, 8.6),
    (-15.0, 45.0, -8.0, 47.0, 7.4),
    (-22.5, 42.5, -17.0, 44.0, 7.6),
)
_METACARPALS_LATERAL = (
    (15.0, 42.0, 20.0, 37.0, 9.5),
    (2.5, 45.5, 5.0, 55.0, 8.0),
    (-3.5, 46.5, -2.0, 53.0, 8.0),
    (-2.0, 45.0, 3.0, 47.0, 7.0),
    (4.0, 43.0, 12.0, 44.0, 7.0),
)


def growth(age: float, sex: str) -> Growth:
    """Mean growth at an age in years; girls are ahead in bone age and stop smaller."""
    ahead = float(np.interp(age, [0, 4, 10, 14, 19], [0, 0.6, 1.4, 2.0, 2.0])) if sex == "F" else 0
    bone_age = age + ahead
    years = [0, 1, 3, 5, 8, 11, 13, 15, 17, 19]
    size = np.interp(bone_age, years, [0.50, 0.59, 0.70, 0.76, 0.84, 0.93, 1.0, 1.09, 1.13, 1.14])
    width = np.interp(bone_age, years, [11, 13.5, 17.5, 19.5, 22, 24.5, 26.5, 29, 30, 30])
    smaller = 1 - 0.09 * float(np.interp(bone_age, [8, 16], [0, 1])) if sex == "F" else 1
    return Growth(bone_age, float(size) * smaller, float(width) * smaller)


def carpal_centres(bone_age: float) -> tuple[str, ...]:
    """Names of the carpal bones with an ossification centre, in order of appearance."""
    return tuple(name for name, onset in CARPAL_ONSET.items() if bone_age >= onset)


def _individual(subject: Subject, rng: np.random.Generator) -> Growth:
    mean = growth(subject.age, subject.sex)
    bone_age = max(0.1, mean.bone_age + float(rng.normal(0, 0.05 * mean.bone_age + 0.05)))
    large = float(np.clip(rng.normal(1, 0.045), 0.88, 1.12))
    return Growth(bone_age, mean.size * large, mean.width * large)


def build(
    subject: Subject, view: int, fractures: Sequence[Fracture] = (), findings: Iterable[str] = ()
) -> Anatomy:
    """Draw one view (1 frontal, 2 lateral, 3 oblique) of a wrist with these fractures.

    ``findings`` may hold anomaly, swelling, pronator, dense lesion and lucent lesion. The same
    arguments give the same anatomy. Each fracture adds one region "fracture", each finding one of
    its own name, either lesion one "lesion".
    """
    rng = np.random.default_rng([subject.shape_seed, view])
    grown = _individual(subject, np.random.default_rng(subject.shape_seed))
    anatomy = Anatomy()
    motion = _forearm(anatomy, grown, view, fractures, rng)
    forearm = len(anatomy.bones)
    _carpus(anatomy, grown, view, rng)
    _hand(anatomy, grown, view, rng)
    anatomy.soft = _soft_outline(grown, view, rng)
    for move in motion:
        _carry_hand(anatomy, move, forearm)
    for finding in sorted(findings):
        FINDINGS[finding](anatomy, grown)
    return anatomy


# --- forearm ---------------------------------------------------------------------------------
_ALONG = [-130.0, -60.0, -40.0, -28.0, -18.0, -10.0, -4.0, -1.0, 0.0]
_HALF = {
    "radius": [0.235, 0.235, 0.25, 0.28, 0.345, 0.425, 0.485, 0.49, 0.45],
    "ulna": [0.19, 0.175, 0.175, 0.185, 0.205, 0.235, 0.275, 0.275, 0.25],
}
_CORTEX = [2.3, 2.2, 1.9, 1.5, 1.0, 0.7, 0.55, 0.5, 0.5]


def _tube(bone: str, grown: Growth, view: int, rng: np.random.Generator) -> Tube:
    size, width = grown.size, grown.width
    y = np.linspace(-130, 0, 131)
    half = np.interp(y, _ALONG, _HALF[bone]) * width
    half *= np.where(view == LATERAL, np.interp(y, [-60, -20, 0], [0.88, 0.92, 0.76]), 1.0)
    bow = rng.normal(0, 1.2) * (y / 60) ** 2
    lean = rng.uniform(0.015, 0.05) * -y
    if bone == "radius":
        centre = (lean + bow) if view != LATERAL else bow + 1.5 * np.exp(-((y + 12) ** 2) / 120)
    elif view == FRONTAL:
        centre = -0.90 * width / size + bow * 0.6 + lean * 0.4
    else:
        beside = -0.45 * width / size if view == OBLIQUE else rng.normal(-1.0, 3.0)
        centre = beside + bow + lean * rng.normal(0.0, 1.8)
    y = y * size - (1.5 * size if bone == "ulna" else 0)
    cortex = np.interp(np.linspace(-130, 0, 131), _ALONG, _CORTEX) * (0.35 + 0.6 * size)
    ragged = _smooth_noise(rng, len(y), 12) * 0.010 * width
    return Tube(y, centre * size - half + ragged, centre * size + half + ragged * 0.5, cortex)


def _smooth_noise(rng: np.random.Generator, count: int, step: int) -> Points:
    knots = rng.normal(0, 1, count // step + 4)
    line = np.interp(np.arange(-step, count + step) / step + 1, np.arange(len(knots)), knots)
    return np.convolve(line, np.hanning(step + 2) / np.hanning(step + 2).sum(), "same")[step:-step]


def _forearm(
    anatomy: Anatomy,
    grown: Growth,
    view: int,
    fractures: Sequence[Fracture],
    rng: np.random.Generator,
) -> list[Motion]:
    """Draw radius and ulna with their epiphyses; returns how the hand follows the radius."""
    carried: list[Motion] = []
    for bone in ("ulna", "radius"):
        tube = _tube(bone, grown, view, rng)
        shaped = Anatomy()
        _long_bone(shaped, tube)
        _epiphysis(shaped, tube, bone, grown, view, rng)
        mine = [f for f in fractures if f.bone == bone or (bone == "ulna" and f.bone == "styloid")]
        for fracture in mine:
            move = break_bone(shaped, tube, fracture, grown, view, rng)
            if move is not None and bone == "radius":
                carried.append(move)
        _absorb(anatomy, shaped)
    return carried


def _absorb(anatomy: Anatomy, part: Anatomy) -> None:
    anatomy.bones += part.bones
    anatomy.strokes += part.strokes
    for name, regions in part.regions.items():
        for region in regions:
            anatomy.mark(name, region)


def _long_bone(anatomy: Anatomy, tube: Tube) -> None:
    """A cortical tube with its marrow, and the dense line of calcification at its end."""
    shaft = float(np.min(tube.right - tube.left)) / 2
    inner = Tube(tube.y - 0.4, tube.left + tube.cortex, tube.right - tube.cortex, tube.cortex)
    anatomy.bones.append(Shape(tube.outline() + np.array([0, 0.5]), 1.2, shaft))
    anatomy.bones.append(Shape(inner.outline(), -0.72, shaft * 0.7))
    left, right = tube.at(tube.y[-1])
    end = np.array([[left + 0.4, tube.y[-1] - 0.5], [right - 0.4, tube.y[-1] - 0.5]])
    anatomy.strokes.append(Stroke(end, 1.0, 0.22))


def physis_gap(bone_age: float) -> float:
    """Height of the radial growth plate in mm at size 1; 0 once it has closed."""
    years = [1, 3, 6, 10, 14, 15.5, 17.0]
    return float(np.interp(bone_age, years, [3.2, 2.3, 1.6, 1.1, 0.8, 0.5, 0]))


_WEDGE = np.array(  # ends of the radius, width 1: thumb side carries the styloid
    [[-0.5, 0.02], [0.5, 0.02], [0.55, 0.30], [0.49, 0.66], [0.38, 0.62], [0.18, 0.40],
     [-0.10, 0.28], [-0.40, 0.29], [-0.53, 0.18]]
)  # fmt: skip
_CAP = np.array(  # the distal ulna: the styloid stands on the far side
    [[-0.48, 0.02], [0.48, 0.02], [0.54, 0.26], [0.36, 0.44], [0.05, 0.36], [-0.20, 0.44],
     [-0.40, 0.84], [-0.54, 0.80], [-0.57, 0.25]]
)  # fmt: skip
_LATERAL_END = np.array(
    [[-0.48, 0.02], [0.48, 0.02], [0.52, 0.24], [0.36, 0.40], [0.0, 0.30], [-0.36, 0.42],
     [-0.52, 0.26]]
)  # fmt: skip


def _epiphysis(
    anatomy: Anatomy, tube: Tube, bone: str, grown: Growth, view: int, rng: np.random.Generator
) -> None:
    """Draw the epiphysis of a forearm bone once it has appeared."""
    age = grown.bone_age if bone == "radius" else grown.bone_age - 4.6
    if age < 1.0:
        return
    years = [1, 2, 3.5, 5.5, 8, 11, 14]
    left, right = tube.at(tube.y[-1])
    broad = (right - left) * float(np.interp(age, years, [0.22, 0.42, 0.6, 0.78, 0.93, 1.03, 1.07]))
    high = broad * float(np.interp(age, years, [0.8, 0.55, 0.55, 0.7, 0.85, 1.0, 1.0]))
    wedge = _LATERAL_END if view == LATERAL else (_WEDGE if bone == "radius" else _CAP)
    grownup = float(np.clip((age - 2.5) / 6, 0, 1))
    angle = np.arctan2(wedge[:, 1] - 0.2, wedge[:, 0])
    oval = np.column_stack([0.5 * np.cos(angle), 0.30 + 0.34 * np.sin(angle)])
    norm = oval + grownup * (wedge - oval)
    middle = (left + right) / 2 + (1 - grownup) * 0.06 * (right - left)
    base = tube.y[-1] + physis_gap(grown.bone_age) * grown.size - (grown.bone_age > 17) * 0.8
    outline = chaikin(norm * [broad, high] + [middle, base])
    behind = view == LATERAL and bone == "ulna"  # seen through the radius
    spongy(anatomy, outline, 0.6 if behind else 1.1, 0.9 * grown.size)
    if grown.bone_age > 14.5:  # the scar of the closing plate stays visible for some years
        scar = np.array([[left + 0.5, base + 0.2], [right - 0.5, base + 0.2]])
        anatomy.strokes.append(Stroke(scar, 0.9, 0.22))


# --- hand and soft tissue --------------------------------------------------------------------
def _carpus(anatomy: Anatomy, grown: Growth, view: int, rng: np.random.Generator) -> None:
    places = _CARPAL_LATERAL if view == LATERAL else _CARPAL_FRONTAL
    narrow = 0.72 if view == OBLIQUE else 1.0
    for name, (x, y, wide, high, tilt) in places.items():
        wobble = rng.normal(0, 1, (4, 10))  # drawn for absent bones too: the others stay in place
        if grown.bone_age < CARPAL_ONSET[name]:
            continue
        ripe = 1 - np.exp(-(grown.bone_age - CARPAL_ONSET[name]) / 2.6)
        extent = (0.24 + 0.82 * ripe) * grown.size * np.array([wide * narrow, high])
        turn = np.linspace(0, 2 * np.pi, 9, endpoint=False)
        norm = np.column_stack([np.cos(turn), np.sin(turn)]) * 0.5
        if name in _CARPAL_FORMS:
            form = (1.0 if view == LATERAL else 1.12) * np.array(_CARPAL_FORMS[name])
            angle = np.arctan2(form[:, 1], form[:, 0])
            oval = 0.5 * np.column_stack([np.cos(angle), np.sin(angle)])
            norm = oval + ripe * (form - oval)
        norm = norm * (1 + 0.05 * ripe * wobble[0, : len(norm), None])
        angle = np.deg2rad(tilt + 4 * wobble[1, 0])
        spin = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        centre = np.array([x * narrow, y]) * grown.size + 0.5 * wobble[2, :2]
        spongy(anatomy, chaikin(norm * extent) @ spin + centre, 1.0, 0.95 * grown.size)


def _hand(anatomy: Anatomy, grown: Growth, view: int, rng: np.random.Generator) -> None:
    rays = _METACARPALS_LATERAL if view == LATERAL else _METACARPALS_FRONTAL
    narrow = 0.72 if view == OBLIQUE else 1.0
    spread = rng.normal(0, 2.5)
    for ray, (x, y, turn, length, wide) in enumerate(rays):
        angle = np.deg2rad(turn + spread * (turn / 12) + rng.normal(0, 1.5))
        base = np.array([x * narrow, y]) * grown.size
        axis = np.array([np.sin(angle), np.cos(angle)])
        wide = wide * (0.25 + 0.75 * grown.width / 26)
        _short_bone(anatomy, base, axis, length * grown.size, wide, grown, proximal=ray == 0)
        knuckle = base + axis * (length + 3.5) * grown.size
        _short_bone(anatomy, knuckle, axis, 0.62 * length * grown.size, 0.9 * wide, grown, True)


def _short_bone(
    anatomy: Anatomy,
    base: Points,
    axis: Points,
    length: float,
    wide: float,
    grown: Growth,
    proximal: bool,
) -> None:
    """A metacarpal or phalanx: waisted tube with one epiphysis near its base or head."""
    along = np.linspace(0, 1, 15)
    half = wide * np.interp(along, [0, 0.05, 0.2, 0.55, 0.85, 0.95, 1],
                            [0.42, 0.66, 0.50, 0.38, 0.52, 0.60, 0.45])  # fmt: skip
    wall = np.interp(along, [0, 0.15, 0.5, 0.85, 1], [0.5, 0.9, 1.5, 0.9, 0.5]) * grown.size
    side = np.array([axis[1], -axis[0]])
    start, stop = (0.13, 1.0) if proximal else (0.0, 0.84)
    if grown.bone_age > 15.5:
        start, stop = 0.0, 1.0
    keep = (along >= start - 0.02) & (along <= stop + 0.02)
    spine = base + np.outer(along * length, axis)
    for half_width, density in ((half, 1.0), (np.maximum(half - wall, 0.2), -0.6)):
        right, left = spine + np.outer(half_width, side), spine - np.outer(half_width, side)
        outline = np.vstack([right[keep], left[keep][::-1]])
        anatomy.bones.append(Shape(outline, density, wide * 0.38))
    if 2.0 < grown.bone_age <= 15.5:
        ripe = float(np.interp(grown.bone_age, [2, 5, 11], [0.3, 0.7, 1.0]))
        middle = base + axis * length * (0.05 if proximal else 0.94)
        turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        deep = 0.055 * length if proximal else 0.09 * length
        oval = np.outer(np.cos(turn), side) * wide * 0.6 + np.outer(np.sin(turn), axis) * deep
        spongy(anatomy, chaikin(middle + ripe * oval), 0.8, 0.6 * grown.size)


_SKIN_FRONTAL = np.array(  # y, far (ulnar) side, near (radial) side
    [[-150, -48, 30], [-90, -44, 27], [-45, -38, 22], [-10, -34, 20], [12, -33, 21],
     [30, -34, 27], [50, -38, 42], [75, -42, 62], [100, -46, 76], [160, -52, 90]], dtype=float,
)  # fmt: skip
_SKIN_LATERAL = np.array(
    [[-150, -30, 34], [-90, -26, 29], [-45, -20, 23], [-10, -15, 18], [12, -15, 19],
     [30, -16, 26], [50, -17, 36], [75, -18, 42], [100, -19, 44], [160, -20, 44]], dtype=float,
)  # fmt: skip


def _soft_outline(grown: Growth, view: int, rng: np.random.Generator) -> Points:
    skin = (_SKIN_LATERAL if view == LATERAL else _SKIN_FRONTAL).copy()
    plump = rng.normal(1.04, 0.06) + 0.16 * np.exp(-grown.bone_age / 2.0)
    y = np.linspace(-150, 160, 80)
    far = np.interp(y, skin[:, 0], skin[:, 1]) * plump + _smooth_noise(rng, 80, 9) * 0.7
    near = np.interp(y, skin[:, 0], skin[:, 2]) * plump + _smooth_noise(rng, 80, 9) * 0.7
    smooth = np.ones(7) / 7
    far, near = (np.convolve(np.pad(v, 3, "edge"), smooth, "valid") for v in (far, near))
    outline = np.vstack([np.column_stack([near, y]), np.column_stack([far, y])[::-1]])
    return outline * grown.size


def _carry_hand(anatomy: Anatomy, move: Motion, forearm: int) -> None:
    """Let carpus, hand and skin beyond a displaced fracture follow it."""
    for index, shape in enumerate(anatomy.bones[forearm:], start=forearm):
        anatomy.bones[index] = Shape(move(shape.outline), shape.density, shape.roundness)
    anatomy.soft = move(anatomy.soft)
