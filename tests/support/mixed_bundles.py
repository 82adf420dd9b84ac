"""Bundles of small networks of any two kinds, whose answers differ from image to image."""

from pathlib import Path

import small_bundles
from small_bundles import write_random_bundle

from pedfrac.bundle.bundle import BundleInfo

SCORER = small_bundles.SCORER | {"low": (0.3, 0.5, 0.7), "high": (0.3, 0.5, 0.7)}
CHOICES = {
    "bundle": ("specialist", "average", "generalist"),
    "specialist": ("specialist",) * 3,
    "generalist": ("generalist",) * 3,
}


def network(backbone: str, size: int, options: dict) -> dict:
    """A network of a bundle, as its description has it."""
    model = {"backbone": backbone, "size": size, "options": options, "weights": "none"}
    return {"model": model, "preparation": {"size": size, "markers": "fill"}}


def mixed_bundle(
    folder: Path,
    fracture: tuple,
    age: tuple,
    head: str = "classes",
    seed: int = 0,
    maps: dict | None = None,
    **more,
) -> Path:
    """Write a bundle into a new folder; networks are (backbone, size, options)."""
    info = BundleInfo.model_validate(
        {
            "age_bounds": (0, 5, 10, 19),
            "fracture": network(*fracture) | {"maps": maps},
            "age": network(*age),
            "age_head": head,
            "scorers": {name: SCORER | {"choices": some} for name, some in CHOICES.items()},
            **more,
        }
    )
    return write_random_bundle(folder, info, seed)
