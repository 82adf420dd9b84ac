"""Random changes to training images, drawn for each image and done on whole batches on the device.

Not here: the preparation that every image gets (``pixels``).
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

from pedfrac.config.training import AugmentConfig

Change = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def augment(
    images: Tensor, config: AugmentConfig, generator: Generator, change: Change | None = None
) -> tuple[Tensor, Tensor]:
    """Return changed copies of images (batch, 1, size, size) in 0…1, and how they were moved.

    They keep shape and range. The moves (batch, 2, 3) are affine matrices from places of the
    changed image to places of the image, whole sides from -1 to 1: what lies on an image moves by
    them, too. All draws come from ``generator`` on the CPU, so a batch is changed alike on every
    device, but for the noise: a GPU draws its own, seeded by it. ``change`` may be a compiled
    ``change_images``.
    """
    changes = draw_changes(len(images), config, generator)
    noise = _draw_noise(images, generator) if config.noise else None
    if images.is_cuda:
        # pinned, so that the host need not wait for the copy
        changes = changes.pin_memory().to(images.device, non_blocking=True)
    return (change or change_images)(images, changes, noise), moves_of(changes)


def moves_of(changes: Tensor) -> Tensor:
    """Return the affine matrices (count, 2, 3) of drawn changes (count, 15)."""
    return changes[:, :6].reshape(-1, 2, 3)


def draw_changes(count: int, config: AugmentConfig, generator: Generator) -> Tensor:
    """Return the random changes of ``count`` images (count, 15), as ``change_images`` reads them.

    One table on the CPU, so that it reaches a device in one copy.
    """
    return torch.cat(
        [
            _draw_affine(count, config, generator).flatten(1),
            1 + _uniform(count, -config.gamma, config.gamma, generator),
            1 + _uniform(count, -config.contrast, config.contrast, generator),
            _uniform(count, -config.brightness, config.brightness, generator),
            _uniform(count, 0, config.noise, generator),
            _draw_rectangle(count, config.erasing, generator),
        ],
        dim=1,
    )


def change_images(images: Tensor, changes: Tensor, noise: Tensor | None) -> Tensor:
    """Return images (batch, 1, size, size) changed as drawn; ``noise`` is standard normal.

    They are warped in one resampling, so that they blur only once.
    """
    gamma, contrast, brightness, strength = (changes[:, k, None, None, None] for k in range(6, 10))
    grid = functional.affine_grid(moves_of(changes), list(images.shape), align_corners=False)
    images = functional.grid_sample(images, grid, align_corners=False)
    images = images.clamp(1e-6, 1).pow(gamma)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)  # contrast is about the image's own mean
    images = ((images - mean) * contrast + mean + brightness).clamp(0, 1)
    if noise is not None:
        images = (images + noise * strength).clamp(0, 1)
    return _blank(images, changes[:, 10:])


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(count, 1, generator=generator) * (high - low) + low


def _happens(count: int, probability: float, generator: Generator) -> Tensor:
    return torch.rand(count, 1, generator=generator) < probability


def _draw_affine(count: int, config: AugmentConfig, generator: Generator) -> Tensor:
    """Return rotation, zoom, flip and shift of each image as a matrix (count, 2, 3)."""
    angle = math.radians(config.rotation) * _uniform(count, -1, 1, generator)
    zoom = 1 + _uniform(count, -config.scale, config.scale, generator)
    # grid coordinates run from -1 to 1, so a whole side is 2
    shift = 2 * config.shift * torch.cat([_uniform(count, -1, 1, generator) for _ in range(2)], 1)
    flip = torch.where(_happens(count, config.flip, generator), -1.0, 1.0)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    across = torch.cat([cos * flip, -sin, shift[:, :1]], dim=1)
    down = torch.cat([sin * flip, cos, shift[:, 1:]], dim=1)
    return torch.stack([across, down], dim=1)


def _draw_noise(images: Tensor, generator: Generator) -> Tensor:
    if images.is_cuda:
        seed = int(torch.randint(2**62, (1,), generator=generator))
        generator = Generator(images.device).manual_seed(seed)
    return torch.randn(images.shape, generator=generator, device=images.device)


def _draw_rectangle(count: int, probability: float, generator: Generator) -> Tensor:
    """Return a rectangle of each image (count, 5): whether it is blanked, top, left and sides.

    As shares of the image's side; 2-10 % of the area, so that it seldom hides the only fracture and
    turns the label wrong.
    """
    chosen = _happens(count, probability, generator)
    area = _uniform(count, 0.02, 0.10, generator)
    aspect = torch.exp(_uniform(count, -math.log(2), math.log(2), generator))
    sides = torch.cat([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=1)
    start = torch.rand(count, 2, generator=generator) * (1 - sides)
    return torch.cat([chosen.float(), start, sides], dim=1)


def _blank(images: Tensor, rectangles: Tensor) -> Tensor:
    """Fill the chosen rectangles (batch, 5) with each image's mean grey."""
    size = images.shape[-1]
    start, sides = rectangles[:, 1:3, None] * size, rectangles[:, 3:, None] * size
    position = torch.arange(size, device=images.device)
    inside = (position >= start) & (position < start + sides)
    chosen = rectangles[:, 0, None, None] > 0
    region = inside[:, 0, :, None] & inside[:, 1, None, :] & chosen
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.where(region[:, None], mean, images)
