"""Random changes to training films, drawn for each film and done on whole batches on the device.

Not here: the preparation that every film gets (``pixels``).
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from pedfrac.config import AugmentConfig


def augment(films: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Return changed copies of films (batch, 1, size, size) in 0…1, in the same shape and range.

    All draws come from ``generator`` on the CPU, so a batch is changed alike on every device.
    """
    films = _warp(films, config, generator)
    films = _change_exposure(films, config, generator)
    films = _add_noise(films, config, generator)
    return _erase(films, config, generator)


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _happens(count: int, probability: float, generator: Generator) -> Tensor:
    return torch.rand(count, generator=generator) < probability


def _warp(films: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Rotate, zoom, shift and flip in one resampling, so that films blur only once."""
    count = len(films)
    angle = _uniform(
        count, -math.radians(config.rotation), math.radians(config.rotation), generator
    )
    zoom = 1 + _uniform(count, -config.scale, config.scale, generator)
    # grid coordinates run from -1 to 1, so a whole side is 2
    shift = torch.stack(
        [_uniform(count, -2 * config.shift, 2 * config.shift, generator) for _ in range(2)], dim=1
    )
    flip = torch.where(_happens(count, config.flip, generator), -1.0, 1.0)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    rows = torch.stack([torch.stack([cos * flip, -sin], 1), torch.stack([sin * flip, cos], 1)], 1)
    affine = torch.cat([rows, shift[:, :, None]], dim=2).to(films.device)
    grid = functional.affine_grid(affine, list(films.shape), align_corners=False)
    return functional.grid_sample(films, grid, align_corners=False)


def _change_exposure(films: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Change gamma, contrast about the film's own mean, and brightness."""
    count = len(films)
    draws = [
        1 + _uniform(count, -config.gamma, config.gamma, generator),
        1 + _uniform(count, -config.contrast, config.contrast, generator),
        _uniform(count, -config.brightness, config.brightness, generator),
    ]
    gamma, contrast, brightness = (draw[:, None, None, None].to(films.device) for draw in draws)
    films = films.clamp(1e-6, 1).pow(gamma)
    mean = films.mean(dim=(1, 2, 3), keepdim=True)
    return ((films - mean) * contrast + mean + brightness).clamp(0, 1)


def _add_noise(films: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    if config.noise == 0:
        return films
    strength = _uniform(len(films), 0, config.noise, generator)[:, None, None, None]
    noise = torch.randn(films.shape, generator=generator) * strength
    return (films + noise.to(films.device)).clamp(0, 1)


def _erase(films: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Blank one rectangle of 2-10 % of the area with the film's mean grey.

    Small, so that it seldom hides the only fracture and turns the label wrong.
    """
    count, size = len(films), films.shape[-1]
    chosen = _happens(count, config.erasing, generator)
    area = _uniform(count, 0.02, 0.10, generator)
    aspect = torch.exp(_uniform(count, -math.log(2), math.log(2), generator))
    sides = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=1) * size
    start = torch.rand(count, 2, generator=generator) * (size - sides)
    position = torch.arange(size)
    inside = (position >= start[:, :, None]) & (position < (start + sides)[:, :, None])
    region = inside[:, 0, :, None] & inside[:, 1, None, :] & chosen[:, None, None]
    mean = films.mean(dim=(1, 2, 3), keepdim=True)
    return torch.where(region[:, None].to(films.device), mean, films)
