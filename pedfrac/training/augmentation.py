"""Random changes to training films, drawn for each film and done on whole batches on the device.

Not here: the preparation that every film gets (``pixels``).
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

from pedfrac.config.training import AugmentConfig

Change = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def augment(
    films: Tensor, config: AugmentConfig, generator: Generator, change: Change | None = None
) -> Tensor:
    """Return changed copies of films (batch, 1, size, size) in 0…1, in the same shape and range.

    All draws come from ``generator`` on the CPU, so a batch is changed alike on every device, but
    for the noise: a GPU draws its own, seeded by it. ``change`` may be a compiled ``change_films``.
    """
    changes = draw_changes(len(films), config, generator)
    noise = _draw_noise(films, generator) if config.noise else None
    if films.is_cuda:
        # pinned, so that the host need not wait for the copy
        changes = changes.pin_memory().to(films.device, non_blocking=True)
    return (change or change_films)(films, changes, noise)


def draw_changes(count: int, config: AugmentConfig, generator: Generator) -> Tensor:
    """Return what is to be done to so many films (count, 15), as ``change_films`` reads it.

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


def change_films(films: Tensor, changes: Tensor, noise: Tensor | None) -> Tensor:
    """Return films (batch, 1, size, size) changed as drawn; ``noise`` is standard normal.

    They are warped in one resampling, so that they blur only once.
    """
    gamma, contrast, brightness, strength = (changes[:, k, None, None, None] for k in range(6, 10))
    grid = functional.affine_grid(
        changes[:, :6].reshape(-1, 2, 3), list(films.shape), align_corners=False
    )
    films = functional.grid_sample(films, grid, align_corners=False)
    films = films.clamp(1e-6, 1).pow(gamma)
    mean = films.mean(dim=(1, 2, 3), keepdim=True)  # contrast is about the film's own mean
    films = ((films - mean) * contrast + mean + brightness).clamp(0, 1)
    if noise is not None:
        films = (films + noise * strength).clamp(0, 1)
    return _blank(films, changes[:, 10:])


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(count, 1, generator=generator) * (high - low) + low


def _happens(count: int, probability: float, generator: Generator) -> Tensor:
    return torch.rand(count, 1, generator=generator) < probability


def _draw_affine(count: int, config: AugmentConfig, generator: Generator) -> Tensor:
    """Return rotation, zoom, flip and shift of each film as a matrix (count, 2, 3)."""
    angle = math.radians(config.rotation) * _uniform(count, -1, 1, generator)
    zoom = 1 + _uniform(count, -config.scale, config.scale, generator)
    # grid coordinates run from -1 to 1, so a whole side is 2
    shift = 2 * config.shift * torch.cat([_uniform(count, -1, 1, generator) for _ in range(2)], 1)
    flip = torch.where(_happens(count, config.flip, generator), -1.0, 1.0)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    across = torch.cat([cos * flip, -sin, shift[:, :1]], dim=1)
    down = torch.cat([sin * flip, cos, shift[:, 1:]], dim=1)
    return torch.stack([across, down], dim=1)


def _draw_noise(films: Tensor, generator: Generator) -> Tensor:
    if films.is_cuda:
        seed = int(torch.randint(2**62, (1,), generator=generator))
        generator = Generator(films.device).manual_seed(seed)
    return torch.randn(films.shape, generator=generator, device=films.device)


def _draw_rectangle(count: int, probability: float, generator: Generator) -> Tensor:
    """Return a rectangle of each film (count, 5): whether it is blanked, top, left and sides.

    As shares of the film's side; 2-10 % of the area, so that it seldom hides the only fracture and
    turns the label wrong.
    """
    chosen = _happens(count, probability, generator)
    area = _uniform(count, 0.02, 0.10, generator)
    aspect = torch.exp(_uniform(count, -math.log(2), math.log(2), generator))
    sides = torch.cat([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=1)
    start = torch.rand(count, 2, generator=generator) * (1 - sides)
    return torch.cat([chosen.float(), start, sides], dim=1)


def _blank(films: Tensor, rectangles: Tensor) -> Tensor:
    """Fill the chosen rectangles (batch, 5) with each film's mean grey."""
    size = films.shape[-1]
    start, sides = rectangles[:, 1:3, None] * size, rectangles[:, 3:, None] * size
    position = torch.arange(size, device=films.device)
    inside = (position >= start) & (position < start + sides)
    chosen = rectangles[:, 0, None, None] > 0
    region = inside[:, 0, :, None] & inside[:, 1, None, :] & chosen
    mean = films.mean(dim=(1, 2, 3), keepdim=True)
    return torch.where(region[:, None], mean, films)
