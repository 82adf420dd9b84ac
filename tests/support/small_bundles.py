"""Bundles of tiny networks with random weights, all different, and images of noise."""

import cv2
import numpy as np
from safetensors.torch import save_file

from pedfrac.bundle.bundle import BundleInfo, weight_names, write_bundle
from pedfrac.config.data import Preparation
from pedfrac.config.training import ModelConfig
from pedfrac.models.classifier import build_model
from pedfrac.models.heads import make_head
from pedfrac.training.trainer import seed_weights

OPTIONS = {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}
MODEL = ModelConfig(backbone="convnextv2_atto", size=32, weights="none", options=OPTIONS)
NETWORK = {"model": MODEL, "preparation": Preparation(size=32, markers="fill")}
PLAIN = {"method": "none"}
SCORER = {
    "choices": ("specialist", "average", "generalist"),
    "calibrators": {"pooled": PLAIN, "groups": (PLAIN,) * 3, "weights": (0, 0, 0)},
    "pooled_threshold": 0.5,
    "thresholds": (0.3, 0.5, 0.7),
    "threshold_weights": (0, 0, 0),
    "study_thresholds": (0.3, 0.5, 0.7),
    "low": (0.3, 0.5, 0.0),
    "high": (0.3, 0.5, None),
}
INFO = BundleInfo.model_validate(
    {
        "age_bounds": (0, 5, 10, 19),
        "fracture": NETWORK,
        "age": NETWORK,
        "scorers": {
            "bundle": SCORER,
            "specialist": SCORER | {"choices": ("specialist",) * 3},
            "generalist": SCORER | {"choices": ("generalist",) * 3},
        },
    }
)


def write_small_bundle(tmp_path, info=INFO):
    return write_random_bundle(tmp_path / "bundle", info)


def write_random_bundle(folder, info, seed=0):
    """Write a bundle of networks with random weights, whose answers differ from image to image."""
    folder.mkdir(parents=True)
    weights = {}
    for number, name in enumerate(weight_names(info.ages), start=seed):
        seed_weights(number)
        network = info.age if name == "age" else info.fracture
        head = make_head(info.age_head, info.ages) if name == "age" else 2
        model = build_model(network.model, head, maps=network.maps)
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


def write_bundle_of_words(folder, words, info=INFO):
    """Write a sealed bundle whose weights are a text: for what looks at files only."""
    weights = {name: folder / f"{name}.weights" for name in weight_names(info.ages)}
    for name, path in weights.items():
        path.write_text(f"{name} {words}")
    write_bundle(folder, info, weights)
    for path in weights.values():
        path.unlink()


def write_image(path, seed=0):
    rng = np.random.default_rng(seed)
    cv2.imwrite(str(path), rng.integers(0, 65536, (60, 40), dtype=np.uint16))
    return path
