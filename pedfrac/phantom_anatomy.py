"""The growing wrist as flat shapes in millimetres: bones, soft tissue and fractures by age.

Not here: pixels, exposure, noise or markers (``phantom_film``). It is a drawing that ages in
the right order, not an atlas: no distance in it may be taken for a measurement.

Axes: the origin is the middle of the radial metaphysis, x points to the thumb (frontal view)
or the palm (lateral view), y towards the fingers. Sizes are those of a boy of 13, times ``size``.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

FRONTAL, LATERAL, OBLIQUE = 1, 2, 3

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
# Base x, y (mm), direction (degrees from +y to the thumb), length and width (mm): thumb first.
_METACARPALS_FRONTAL = (
    (20.5, 43.0, 36.0, 37.0, 9.5),
    (5.5, 45.5, 7.0, 55.0, 8.8),
    (-6.0, 46.0, 0.0, 53.0, 8.6),
    (-15.0, 45.0, -8.0, 47.0, 7.4),
    (-22.5, 42.5, -17.0, 44.0, 7.6),
)
_METACARPALS_LATERAL = (
    (17.0, 42.0, 24.0, 37.0, 9.5),
    (1.5, 45.5, 3.0, 55.0, 9.0),
    (-0.5, 46.5, 0.0, 53.0, 9.0),
    (0.5, 45.0, 4.0, 47.0, 8.0),
    (2.5, 43.0, 8.0, 44.0, 8.0),
)


@dataclass(frozen=True)
class Subject:
    """Who is drawn: age in years, sex (M, F or O) and the seed of the individual shape."""

    age: float
    sex: str
    shape_seed: int


@dataclass(frozen=True)
class Fracture:
    """One fracture of one bone.

    ``bone`` is radius, ulna or styloid; ``kind`` buckle, greenstick, transverse, physeal or
    avulsion. ``place`` is the distance from the metaphysis in mm at ``size`` 1, ``severity``
    and ``healing`` run from 0 to 1, ``side`` is the side of the cortex (+1 thumb or palm).
    """

    bone: str
    kind: str
    place: float
    severity: float
    side: int
    healing: float = 0.0


@dataclass(frozen=True)
class Shape:
    """A body that weakens the beam: outline (N, 2) in mm and what it adds in its middle.

    ``density`` is signed (a marrow cavity takes away from its bone); ``roundness`` is the depth
    in mm at which the full thickness is reached, as in a cylinder of that radius.
    """

    outline: Points
    density: float
    roundness: float


@dataclass(frozen=True)
class Stroke:
    """A thin line (N, 2) in mm that scales the bone under it by ``1 + gain``."""

    line: Points
    width: float
    gain: float


@dataclass
class Anatomy:
    """Everything of one view in mm: what is drawn, and the regions (N, 2) the boxes enclose."""

    bones: list[Shape] = field(default_factory=list)
    strokes: list[Stroke] = field(default_factory=list)
    soft: Points = field(default_factory=lambda: np.zeros((0, 2)))
    regions: dict[str, list[Points]] = field(default_factory=dict)

    def mark(self, name: str, region: Points) -> None:
        """Remember a region (N, 2) under the name of its box class."""
        self.regions.setdefault(name, []).append(region)


@dataclass(frozen=True)
class Growth:
    """What age makes of a wrist: bone age (boys' years), linear size and radial width in mm."""

    bone_age: float
    size: float
    width: float


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

    ``findings`` may hold anomaly, swelling and pronator. The same arguments give the same
    anatomy. Each fracture adds one region "fracture", each finding one of its own name.
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
        _FINDINGS[finding](anatomy, grown)
    return anatomy


# --- forearm ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tube:
    """A long bone along y (ascending, mm): left and right cortex x, and cortical thickness."""

    y: Points
    left: Points
    right: Points
    cortex: Points

    def outline(self) -> Points:
        """Closed outline (2N, 2), up the right side and down the left."""
        up = np.column_stack([self.right, self.y])
        return np.vstack([up, np.column_stack([self.left, self.y])[::-1]])

    def at(self, y: float) -> tuple[float, float]:
        """Left and right x of the bone at a height y."""
        return float(np.interp(y, self.y, self.left)), float(np.interp(y, self.y, self.right))


@dataclass(frozen=True)
class Motion:
    """The part beyond ``pivot`` turned by ``angle`` (radians) and shifted by ``shift`` mm."""

    pivot: tuple[float, float]
    angle: float
    shift: float
    blend: float = 0.0

    def __call__(self, points: Points) -> Points:
        """Move points (N, 2); those this side of the pivot stay, ``blend`` mm soften the step."""
        along = points[:, 1] - self.pivot[1]
        share = np.clip(along / self.blend, 0, 1) if self.blend else (along > 0).astype(float)
        turn = -self.angle * share
        x, y = points[:, 0] - self.pivot[0], along
        moved_x = x * np.cos(turn) - y * np.sin(turn) + self.pivot[0] + self.shift * share
        moved_y = x * np.sin(turn) + y * np.cos(turn) + self.pivot[1]
        return np.column_stack([moved_x, moved_y])


_ALONG = [-130.0, -60.0, -40.0, -28.0, -18.0, -10.0, -4.0, -1.0, 0.0]
_HALF = {
    "radius": [0.235, 0.235, 0.25, 0.28, 0.345, 0.425, 0.485, 0.50, 0.485],
    "ulna": [0.19, 0.175, 0.175, 0.185, 0.205, 0.235, 0.275, 0.285, 0.27],
}
_CORTEX = [2.3, 2.2, 1.9, 1.5, 1.0, 0.7, 0.55, 0.5, 0.5]


def _tube(bone: str, grown: Growth, view: int, rng: np.random.Generator) -> Tube:
    size, width = grown.size, grown.width
    y = np.linspace(-130, 0, 131)
    half = np.interp(y, _ALONG, _HALF[bone]) * width
    half *= np.where(view == LATERAL, np.interp(y, [-20, 0], [0.95, 0.76]), 1.0)
    bow = rng.normal(0, 1.2) * (y / 60) ** 2
    lean = rng.uniform(0.015, 0.05) * -y
    if bone == "radius":
        centre = (lean + bow) if view != LATERAL else bow + 1.5 * np.exp(-((y + 12) ** 2) / 120)
    elif view == FRONTAL:
        centre = -0.90 * width / size + bow * 0.6 + lean * 0.4
    else:
        beside = -0.45 * width / size if view == OBLIQUE else rng.normal(-1.5, 2.2)
        centre = beside + bow + lean * rng.normal(0.0, 0.8)
    y = y * size - (1.5 * size if bone == "ulna" else 0)
    cortex = np.interp(np.linspace(-130, 0, 131), _ALONG, _CORTEX) * (0.35 + 0.6 * size)
    ragged = _smooth_noise(rng, len(y), 6) * 0.012 * width
    return Tube(y, centre * size - half + ragged, centre * size + half + ragged * 0.5, cortex)


def _smooth_noise(rng: np.random.Generator, count: int, step: int) -> Points:
    knots = rng.normal(0, 1, count // step + 2)
    return np.interp(np.arange(count) / step, np.arange(len(knots)), knots)


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
            move = _break(shaped, tube, fracture, grown, view, rng)
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
    inner = Tube(tube.y, tube.left + tube.cortex, tube.right - tube.cortex, tube.cortex)
    anatomy.bones.append(Shape(tube.outline(), 1.0, shaft))
    anatomy.bones.append(Shape(inner.outline(), -0.52, shaft * 0.85))
    left, right = tube.at(tube.y[-1])
    end = np.array([[left + 0.4, tube.y[-1] - 0.5], [right - 0.4, tube.y[-1] - 0.5]])
    anatomy.strokes.append(Stroke(end, 1.0, 0.30))


def physis_gap(bone_age: float) -> float:
    """Height of the radial growth plate in mm at size 1; 0 once it has closed."""
    years = [1, 3, 6, 10, 14, 15.5, 17.0]
    return float(np.interp(bone_age, years, [3.2, 2.3, 1.6, 1.1, 0.8, 0.5, 0]))


_WEDGE = np.array(  # ends of the radius, width 1: thumb side carries the styloid
    [[-0.5, 0.02], [0.5, 0.02], [0.53, 0.30], [0.47, 0.62], [0.36, 0.60], [0.18, 0.34],
     [-0.10, 0.23], [-0.40, 0.24], [-0.52, 0.16]]
)  # fmt: skip
_CAP = np.array(  # the distal ulna: the styloid stands on the far side
    [[-0.48, 0.02], [0.48, 0.02], [0.5, 0.2], [0.3, 0.30], [0.0, 0.24], [-0.25, 0.34],
     [-0.40, 0.72], [-0.52, 0.68], [-0.55, 0.25]]
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
    oval = np.column_stack([0.5 * np.cos(angle), 0.22 + 0.22 * np.sin(angle)])
    norm = oval + grownup * (wedge - oval)
    middle = (left + right) / 2 + (1 - grownup) * 0.06 * (right - left)
    base = tube.y[-1] + physis_gap(grown.bone_age) * grown.size - (grown.bone_age > 17) * 0.8
    outline = chaikin(norm * [broad, high] + [middle, base])
    spongy(anatomy, outline, 0.95, 0.7 * grown.size)
    if grown.bone_age > 14.5:  # the scar of the closing plate stays visible for some years
        scar = np.array([[left + 0.5, base + 0.2], [right - 0.5, base + 0.2]])
        anatomy.strokes.append(Stroke(scar, 0.9, 0.22))


def _ellipse(x: float, y: float, wide: float, high: float) -> Points:
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return np.column_stack([x + wide * np.cos(turn), y + high * np.sin(turn)])


def _rectangle(left: float, right: float, low: float, high: float) -> Points:
    return np.array([[left, low], [right, low], [right, high], [left, high]])


def chaikin(points: Points, rounds: int = 3) -> Points:
    """Round the corners of a closed outline (N, 2); returns (N * 2**rounds, 2)."""
    for _ in range(rounds):
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1)
        points = points.reshape(-1, 2)
    return points


def spongy(anatomy: Anatomy, outline: Points, density: float, shell: float) -> None:
    """Add a cancellous bone: a thin dense shell (mm) around a lighter body."""
    middle = outline.mean(axis=0)
    reach = np.linalg.norm(outline - middle, axis=1)
    radius = float(max(reach.mean(), 0.5))
    shell = min(shell, 0.4 * radius)
    inner = middle + (outline - middle) * (1 - shell / np.maximum(reach, 1e-6))[:, None]
    anatomy.bones.append(Shape(outline, density, 0.6 * radius))
    anatomy.bones.append(Shape(inner, -0.38 * density, 0.5 * radius))


# --- fractures -------------------------------------------------------------------------------


def _break(
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
    high = (3.6 + 1.6 * fracture.severity) * grown.size
    wide = 0.7 + (1.2 * fracture.severity + 1.0 * fracture.healing) * grown.size
    region = _rectangle(left - wide, right + wide, place - high, place + high)
    anatomy.mark("fracture", move(region) if move is not None else region)
    return move


def _buckle(
    anatomy: Anatomy, y: float, left: float, right: float, side: int, strength: float, size: float
) -> None:
    """Bulge the cortices outwards around y and lay a faint dense band across."""
    middle, spread = (left + right) / 2, 2.1 * size
    for index, shape in enumerate(anatomy.bones[:2]):  # cortex and marrow of the long bone
        near = np.exp(-(((shape.outline[:, 1] - y) / spread) ** 2))
        out = np.sign(shape.outline[:, 0] - middle)
        reach = np.where(out == side, 1.0, 0.45) * (0.25 + 1.55 * strength) * size
        moved = shape.outline + np.column_stack([near * out * reach, np.zeros(len(near))])
        anatomy.bones[index] = Shape(moved, shape.density, shape.roundness)
    band = np.array([[left, y], [right, y + 0.4]])
    anatomy.strokes.append(Stroke(band, 1.6 * size, 0.03 + 0.14 * strength))


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
    loose = max(0.0, fracture.severity - 0.35) * (1 - 0.6 * fracture.healing)
    angle = fracture.side * loose * (0.42 if view == LATERAL else 0.16)
    slide = 0.0
    if fracture.kind == "transverse":
        slide = fracture.side * max(0.0, fracture.severity - 0.55) * (right - left) * 0.55
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
    gain = -(0.10 + 0.50 * strength) * (1 - 0.6 * fracture.healing)
    anatomy.strokes.append(Stroke(line, 0.5 + 0.8 * strength, gain))
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
    share = 0.22 if view == LATERAL else 0.12
    offset = np.array([fracture.side * strength * share * width, (0.2 + 0.9 * strength) * size])
    for index in (2, 3):  # shell and body of the epiphysis
        shape = anatomy.bones[index]
        anatomy.bones[index] = Shape(shape.outline + offset, shape.density, shape.roundness)
    corner = right if fracture.side > 0 else left
    inward = -fracture.side * 0.33 * width
    crack = np.array([[corner, top - 7 * size], [corner + inward, top - 0.2]])
    anatomy.strokes.append(Stroke(crack, 0.5 + 0.5 * strength, -(0.1 + 0.4 * strength)))
    reach = anatomy.bones[2].outline
    low, high = top - 7.5 * size, min(float(reach[:, 1].max()), top + 8 * size)
    near, far = min(left, reach[:, 0].min()) - 1, max(right, reach[:, 0].max()) + 1
    anatomy.mark("fracture", _rectangle(near, far, low, high))
    return Motion(((left + right) / 2, top), 0.0, float(offset[0]), blend=5.0 * size)


def _avulse(anatomy: Anatomy, tube: Tube, fracture: Fracture, grown: Growth) -> None:
    """A small fragment off the ulnar styloid."""
    left, _ = tube.at(tube.y[-1])
    size = grown.size
    x, y = left + 0.5 * size, float(tube.y[-1]) + 9.5 * size
    radius = size * (0.6 + 0.7 * fracture.severity)
    outline = _ellipse(x, y, 1.1 * radius, 1.6 * radius)
    anatomy.bones.append(Shape(outline, 0.25 + 0.5 * fracture.severity, 1.2 * size))
    reach = 4.2 * size
    anatomy.mark("fracture", _rectangle(x - reach, x + reach, y - reach, y + reach))


def _heal(
    anatomy: Anatomy, y: float, left: float, right: float, fracture: Fracture, size: float
) -> None:
    """Callus along the cortices and sclerosis across, growing with healing."""
    thick = (0.5 + 1.6 * fracture.healing) * size
    for x in (left, right):
        oval = _ellipse(x, y, thick, 9 * size)
        anatomy.bones.append(Shape(oval, 0.10 + 0.16 * fracture.healing, thick))
        if fracture.healing > 0.45:
            anatomy.mark("periosteal", oval)
    band = np.array([[left, y], [right, y]])
    anatomy.strokes.append(Stroke(band, 4.5 * size, 0.12 * fracture.healing))


# --- hand and soft tissue --------------------------------------------------------------------


def _carpus(anatomy: Anatomy, grown: Growth, view: int, rng: np.random.Generator) -> None:
    places = _CARPAL_LATERAL if view == LATERAL else _CARPAL_FRONTAL
    narrow = 0.72 if view == OBLIQUE else 1.0
    for name, (x, y, wide, high, tilt) in places.items():
        wobble = rng.normal(0, 1, (4, 9))  # drawn for absent bones too: the others stay in place
        if grown.bone_age < CARPAL_ONSET[name]:
            continue
        ripe = 1 - np.exp(-(grown.bone_age - CARPAL_ONSET[name]) / 2.6)
        extent = (0.24 + 0.76 * ripe) * grown.size * np.array([wide * narrow, high])
        turn = np.linspace(0, 2 * np.pi, 9, endpoint=False)
        square = 0.5 * (1 + 0.16 * ripe * np.cos(4 * turn) * -1 + 0.05 * ripe * wobble[0])
        norm = np.column_stack([np.cos(turn), np.sin(turn)]) * square[:, None]
        angle = np.deg2rad(tilt + 4 * wobble[1, 0])
        spin = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        centre = np.array([x * narrow, y]) * grown.size + 0.5 * wobble[2, :2]
        spongy(anatomy, chaikin(norm * extent) @ spin + centre, 0.85, 0.75 * grown.size)


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
    for half_width, density in ((half, 0.9), (np.maximum(half - wall, 0.2), -0.45)):
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


# --- other findings --------------------------------------------------------------------------


def _anomaly(anatomy: Anatomy, grown: Growth) -> None:
    """A bone cyst in the metaphysis of the radius."""
    size = grown.size
    cyst = _ellipse(1.0 * size, -17 * size, 0.22 * grown.width, 7 * size)
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


_FINDINGS: dict[str, Callable[[Anatomy, Growth], None]] = {
    "anomaly": _anomaly,
    "swelling": _swelling,
    "pronator": _pronator,
}
