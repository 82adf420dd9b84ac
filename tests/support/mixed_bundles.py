"""Bundles of small networks of any two kinds, whose answers differ from film to film."""

from pathlib import Path

from safetensors.torch import save_file

from pedfrac.bundle import BundleInfo, weight_names, write_bundle
from pedfrac.config import ModelConfig
from pedfrac.heads import make_head
from pedfrac.models import build_model
from pedfrac.training import seed_weights

PLAIN = {"method": "none"}
SCORER = {
    "calibrators": {"pooled": PLAIN, "groups": (PLAIN,) * 3, "weights": (0, 0, 0)},
    "pooled_threshold": 0.5,
    "thresholds": (0.3, 0.5, 0.7),
    "threshold_weights": (0, 0, 0),
    "study_thresholds": (0.3, 0.5, 0.7),
    "low": (0.3, 0.5, 0.7),
    "high": (0.3, 0.5, 0.7),
}
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
    folder: Path, fracture: tuple, age: tuple, head: str = "classes", seed: int = 0, **more
) -> Path:
    """Write a bundle into a new folder; networks are (backbone, size, options)."""
    info = BundleInfo.model_validate(
        {
            "age_bounds": (0, 5, 10, 19),
            "fracture": network(*fracture),
            "age": network(*age),
            "age_head": head,
            "scorers": {name: SCORER | {"choices": some} for name, some in CHOICES.items()},
            **more,
        }
    )
    folder.mkdir(parents=True)
    weights = {}
    for number, name in enumerate(weight_names(info.ages)):
        seed_weights(seed + number)
        own = make_head(info.age_head, info.ages) if name == "age" else 2
        config = ModelConfig(**network(*(age if name == "age" else fracture))["model"])
        model = build_model(config, own)
        # ages rise by a number that moves the odds of every bound: a large one makes all certain
        spread = 0.01 if model.head.tells_age else 0.5
        for parameter in model.network.get_classifier().parameters():
            parameter.data.normal_(std=spread)
        weights[name] = folder / f"{name}.weights"
        save_file(model.state_dict(), weights[name])
    write_bundle(folder, info, weights)
    for path in weights.values():
        path.unlink()
    return folder
