"""From a drawn wrist to a 16-bit image: projection, exposure, cast, noise, and its boxes.

Not here: what the wrist looks like at an age (``phantom_anatomy``) or which images there are
(``phantoms``). Pixels are made for tests and demonstrations; nothing about them is calibrated.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pedfrac.phantoms.anatomy import build, growth
from pedfrac.phantoms.overlays import add_markers, add_metal, add_rims
from pedfrac.phantoms.plane import (
    PIXEL_MM,
    Box,
    Plane,
    Scene,
    chord,
    clouds,
    enclose,
    filled,
    grain,
    smooth_depth,
    tile,
    trabeculae,
    window_of,
)
from pedfrac.phantoms.shapes import LATERAL, Fracture, Lesion, Points, Shape, Stroke, Subject

Image = NDArray[np.uint16]
WIDTH_RANGE, HEIGHT_RANGE = (248, 1449), (472, 1697)

# Regions of the anatomy and the YOLO classes that their boxes get.
CLASSES = {
    "anomaly": 0,
    "lesion": 1,
    "fracture": 3,
    "metal": 4,
    "periosteal": 5,
    "pronator": 6,
    "swelling": 7,
}

# Wrists with a lesion are all drawn at this age (years) and sex, so that no image tells the age.
_LESION_AGE, _LESION_SEX = 10.0, "M"
_STEP = 17  # 3,856 grey levels, as many as real images have after their stretch to 16 bits


@dataclass(frozen=True)
class ImageSpec:
    """All that decides one image: whom, which view, what is on it, and the seed of its exposure."""

    subject: Subject
    view: int
    laterality: str
    seed: tuple[int, ...]
    fractures: tuple[Fracture, ...] = ()
    findings: tuple[str, ...] = ()
    cast: bool = False
    metal: bool = False
    osteopenia: bool = False
    lesion: Lesion | None = None

    @property
    def drawn(self) -> Subject:
        """The subject as drawn: with a lesion, of one age and sex whatever is recorded."""
        if self.lesion is None:
            return self.subject
        return replace(self.subject, age=_LESION_AGE, sex=_LESION_SEX)

    @property
    def fractured(self) -> bool:
        """Whether a fracture is to be seen, or a lesion that counts as one."""
        return bool(self.fractures) or (self.lesion is not None and self.lesion.fracture)


def render(spec: ImageSpec, scale: float = 1.0, shortcut: bool = False) -> tuple[Image, list[Box]]:
    """Expose one image; returns (height, width) uint16 and its boxes. Pure: same in, same out.

    ``scale`` is the linear size relative to real images; small images are drawn larger and then
    averaged down. With ``shortcut`` the marker of a fractured image is a bright card, inside the
    box it has anyway.
    """
    finer = max(1, int(np.ceil(0.5 / scale)))
    rng = np.random.default_rng(spec.seed)
    who = spec.drawn
    size = growth(who.age, who.sex).size
    anatomy = build(who, spec.view, spec.fractures, _findings(spec))
    scene = _scene(spec, scale * finer, finer, rng)
    bone = _bone_plane(anatomy.bones, anatomy.strokes, scene, rng)
    plane = _beam(bone, anatomy.soft, spec, scene, rng)
    metal = add_metal(plane, size, spec.view == LATERAL, scene, rng) if spec.metal else []
    boxes = [
        enclose(_box_class(name, spec), scene.pixels(region), scene)
        for name, regions in anatomy.regions.items()
        for region in regions
    ]
    boxes += [enclose(CLASSES["metal"], part, scene) for part in metal]
    add_rims(plane, scene, rng)
    telling = shortcut and spec.fractured
    boxes += add_markers(plane, spec.laterality, scene, boxes, telling, rng)
    image = _digitise(plane, scene, finer, rng)
    return image, [_shrink(box, finer) for box in boxes]


def _findings(spec: ImageSpec) -> tuple[str, ...]:
    if spec.lesion is None:
        return spec.findings
    return (*spec.findings, "dense lesion" if spec.lesion.dense else "lucent lesion")


def _box_class(region: str, spec: ImageSpec) -> int:
    return CLASSES["fracture" if region == "lesion" and spec.fractured else region]


def _shrink(box: Box, finer: int) -> Box:
    return Box(box.label, *(edge / finer for edge in (box.x0, box.y0, box.x1, box.y1)))


def _scene(spec: ImageSpec, scale: float, multiple: int, rng: np.random.Generator) -> Scene:
    """Choose the collimated field, how it and the arm are turned, and the image around it."""
    size = growth(spec.drawn.age, spec.drawn.sex).size
    per_mm = scale / PIXEL_MM
    wide = (72 if spec.view == LATERAL else 86) * size**0.8 * rng.lognormal(0, 0.09)
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
    return Scene((height, width), per_mm, np.column_stack([axes, origin]), field, tilt)


# --- what the beam meets ---------------------------------------------------------------------
def _bone_plane(
    shapes: list[Shape], strokes: list[Stroke], scene: Scene, rng: np.random.Generator
) -> Plane:
    """Sum of all bone along the beam, with trabeculae; about 0.5 in a shaft, 1 in its cortex."""
    plane = np.zeros(scene.shape, np.float32)
    for shape in shapes:
        points = scene.pixels(shape.outline)
        window = window_of(points, scene, 2)
        if window is None:
            continue
        part = plane[window]
        mask = filled(points - [window[1].start, window[0].start], part.shape)
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
        part += np.float32(shape.density) * chord(depth, shape.roundness * scene.per_mm)
    for stroke in strokes:
        _draw_stroke(plane, stroke, scene)
    window = window_of(scene.pixels(np.vstack([s.outline for s in shapes])), scene, 2)
    if window is not None:
        part = plane[window]
        part *= 1 + np.float32(0.085) * tile(trabeculae(), part.shape, rng)
    np.maximum(plane, 0, out=plane)
    return plane / (np.float32(0.88) + np.float32(0.30) * plane)  # bone behind bone adds less


def _draw_stroke(plane: Plane, stroke: Stroke, scene: Scene) -> None:
    points = scene.pixels(stroke.line)
    soft = max(0.8, 0.35 * stroke.width * scene.per_mm)
    window = window_of(points, scene, int(stroke.width * scene.per_mm + 3 * soft) + 2)
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
    bone: Plane, skin: Points, spec: ImageSpec, scene: Scene, rng: np.random.Generator
) -> Plane:
    """Grey value 0 to 1 of air, soft tissue, cast and bone under an uneven exposure."""
    size = growth(spec.drawn.age, spec.drawn.sex).size
    air, tissue = rng.uniform(0.07, 0.17), rng.uniform(0.19, 0.27)
    contrast = rng.uniform(0.26, 0.42) * (0.72 if spec.osteopenia else 1.0)
    coarse = 4
    shape = (scene.shape[0] // coarse + 1, scene.shape[1] // coarse + 1)
    depth = smooth_depth(scene.pixels(skin), shape, coarse, scene.per_mm)
    fat = np.clip((depth - 1.5 * size) / (3.0 * size), 0, 1)
    smooth = air + tissue * (0.78 * chord(depth, 18 * size) + 0.22 * fat)
    if spec.cast:
        smooth += _cast(skin, size, coarse, shape, scene, rng)
    rows, columns = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    smooth *= 1 + rng.normal(0, 0.05) * rows + rng.normal(0, 0.05) * columns
    smooth *= 1 + 0.02 * tile(clouds(), shape, rng)
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
    scene: Scene,
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
    for offset, sign in ((gap, -1), (gap + thick, 1)):
        shell = under + np.column_stack([side * offset, np.zeros(len(under))])
        depth = smooth_depth(scene.pixels(shell), shape, coarse, scene.per_mm)
        total += sign * chord(depth, 22 * size + offset)
    front_and_back = np.float32(0.06) * np.minimum(depth / thick, 1)
    wrinkles = 1 + 0.25 * tile(clouds(), shape, rng)
    return (np.float32(rng.uniform(0.18, 0.38)) * total + front_and_back) * wrinkles


# --- noise and numbers -----------------------------------------------------------------------
def _digitise(plane: Plane, scene: Scene, finer: int, rng: np.random.Generator) -> Image:
    """Add quantum noise, cut to the exposed field, shrink, and spread over 16 bits."""
    noise = np.float32(rng.uniform(0.018, 0.028))
    plane *= 1 + noise * tile(grain(), scene.shape, rng)
    exposed = np.zeros(scene.shape, np.uint8)
    cv2.fillPoly(exposed, [np.round(scene.field * 8).astype(np.int32)], 255, cv2.LINE_AA, shift=3)
    plane *= exposed
    if finer > 1:
        size = (scene.shape[1] // finer, scene.shape[0] // finer)
        plane = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
    levels = 65535 // _STEP
    np.clip(plane * np.float32(levels / 255), 0, levels, out=plane)
    return plane.astype(np.uint16) * np.uint16(_STEP)
