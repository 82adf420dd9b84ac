"""The plane of a phantom image: where mm fall on pixels, filled outlines, textures, boxes.

Not here: what is drawn on it (``phantom_image``, ``phantom_overlays``).
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pedfrac.phantoms.shapes import Points

Plane = NDArray[np.float32]
PIXEL_MM = 0.144


@dataclass(frozen=True)
class Box:
    """A box in pixels of the image; ``label`` is its YOLO class."""

    label: int
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Scene:
    """The image's plane: (height, width) in pixels, pixels per mm, mm to pixels, exposed field."""

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


def enclose(label: int, points: Points, scene: Scene) -> Box:
    """The smallest box (pixels, kept on the image) around points (N, 2) in pixels."""
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    height, width = scene.shape
    x0, x1 = np.clip([x0, x1], 0, width)
    y0, y1 = np.clip([y0, y1], 0, height)
    return Box(label, float(x0), float(y0), float(x1), float(y1))


def window_of(points: Points, scene: Scene, margin: int) -> tuple[slice, slice] | None:
    """Rows and columns of the image near points (N, 2) in pixels; None where they miss it."""
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - margin, 0)
    high = np.ceil(points.max(axis=0)).astype(int) + margin
    high = np.minimum(high, [scene.shape[1], scene.shape[0]])
    if (high <= low).any():
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


def filled(points: Points, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A mask (height, width), 255 inside the outline (N, 2) in pixels and 0 outside."""
    mask = np.zeros(shape, np.uint8)
    return cv2.fillPoly(mask, [np.round(points * 8).astype(np.int32)], 255, shift=3)


def chord(depth: Plane, roundness: float) -> Plane:
    """Path through a cylinder of radius ``roundness`` at a depth below its edge, 0 to 1."""
    hollow = 1 - np.minimum(depth * np.float32(1 / max(roundness, 0.5)), np.float32(1))
    return np.sqrt(1 - hollow * hollow)


def smooth_depth(points: Points, shape: tuple[int, int], coarse: int, per_mm: float) -> Plane:
    """Depth in mm below an outline (pixels), on a coarse grid without its stair-steps."""
    depth = cv2.distanceTransform(filled(points / coarse, shape), cv2.DIST_L2, 5)
    depth = cv2.GaussianBlur(depth, (0, 0), 1.3) * np.float32(coarse / per_mm)
    return np.maximum(depth - np.float32(0.5), 0)


# --- textures --------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def grain() -> Plane:
    """Quantum noise of unit variance, neighbouring pixels correlated as in real images."""
    white = np.random.default_rng(1).standard_normal((1500, 1500), np.float32)
    return _normal(cv2.GaussianBlur(white, (3, 3), 0.62, borderType=cv2.BORDER_REFLECT))


@lru_cache(maxsize=1)
def trabeculae() -> Plane:
    """A lattice of fine lines, mostly along y."""
    rng = np.random.default_rng(2)
    white = rng.standard_normal((1500, 1500), np.float32)
    along = _normal(cv2.GaussianBlur(white, (0, 0), sigmaX=0.9, sigmaY=3.6))
    across = _normal(cv2.GaussianBlur(white[::-1], (0, 0), sigmaX=2.6, sigmaY=0.9))
    coarse = _normal(cv2.GaussianBlur(white[:, ::-1], (0, 0), 3.0))
    return _normal(along + 0.6 * across + 0.25 * coarse)


@lru_cache(maxsize=1)
def clouds() -> Plane:
    """Slow unevenness, for exposure and plaster."""
    white = np.random.default_rng(3).standard_normal((150, 150), np.float32)
    return _normal(cv2.resize(cv2.GaussianBlur(white, (0, 0), 1.5), (900, 900)))


def _normal(plane: Plane) -> Plane:
    return (plane - plane.mean()) / plane.std()


def tile(texture: Plane, shape: tuple[int, int], rng: np.random.Generator) -> Plane:
    """A piece of a texture (repeated where too small) at a random place, perhaps mirrored."""
    flip, top, left = rng.integers(0, 2), rng.random(), rng.random()
    repeats = [-(-side // have) for side, have in zip(shape, texture.shape, strict=True)]
    if max(repeats) > 1:
        texture = np.tile(texture, repeats)
    row = int(top * (texture.shape[0] - shape[0] + 1))
    column = int(left * (texture.shape[1] - shape[1] + 1))
    piece = texture[row : row + shape[0], column : column + shape[1]]
    return piece[:, ::-1] if flip else piece
