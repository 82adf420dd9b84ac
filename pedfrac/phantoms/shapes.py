"""Shapes from which a phantom wrist is drawn: outlines in mm, tubes, motions, regions.

Not here: any bone (``phantom_anatomy``), any injury (``phantom_fractures``) or any pixel.

Axes: the origin is the middle of the radial metaphysis, x points to the thumb (frontal view)
or the palm (lateral view), y towards the fingers. Sizes are those of a boy of 13, times ``size``.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
FRONTAL, LATERAL, OBLIQUE = 1, 2, 3


@dataclass(frozen=True)
class Subject:
    """Who is drawn: age in years, sex (M, F or O) and the seed of the individual shape."""

    age: float
    sex: str
    shape_seed: int


@dataclass(frozen=True)
class Growth:
    """What age makes of a wrist: bone age (boys' years), linear size and radial width in mm."""

    bone_age: float
    size: float
    width: float


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
class Lesion:
    """A round lesion of the radius, dense or lucent, that counts as a fracture or does not.

    Whether it counts is recorded in the table and the boxes; no pixel depends on it.
    """

    dense: bool
    fracture: bool


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


def ellipse(x: float, y: float, wide: float, high: float) -> Points:
    """Outline (20, 2) of an ellipse from its centre and half axes."""
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return np.column_stack([x + wide * np.cos(turn), y + high * np.sin(turn)])


def rectangle(left: float, right: float, low: float, high: float) -> Points:
    """Outline (4, 2) of a rectangle along the axes."""
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
    anatomy.bones.append(Shape(outline, density, min(0.5 * radius, 3.0)))
    anatomy.bones.append(Shape(inner, -0.46 * density, min(0.4 * radius, 2.5)))
