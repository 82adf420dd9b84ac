"""Checkpoints: tensors written whole or not at all, and read back."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pedfrac.config.training import MapShape, ModelConfig
from pedfrac.models.classifier import ImageClassifier, build_model
from pedfrac.models.heads import Head
from pedfrac.storage.files import write_json

CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
MAPS = "maps.json"  # beside the weights: which finding maps the network has


def load_weights(model: nn.Module, path: Path) -> None:
    """Put the weights of a finished training into a model of the same shape."""
    model.load_state_dict(load_file(path))


def trained_network(
    config: ModelConfig, head: Head | int, files: Callable[[str], Path]
) -> ImageClassifier:
    """Return the network that a finished training left, with its finding maps.

    ``files`` gives the place of each file of the training, by its name.
    """
    network = build_model(config, head, load_weights=False, maps=read_maps(files(MAPS)))
    load_weights(network, files(MODEL))
    return network


def save_maps(folder: Path, maps: MapShape | None) -> None:
    """Write which finding maps a trained network has."""
    write_json(folder / MAPS, maps and maps.model_dump(mode="json"))


def read_maps(file: Path) -> MapShape | None:
    """Return which finding maps a trained network has, from its file MAPS."""
    found = json.loads(file.read_text())
    return None if found is None else MapShape.model_validate(found)


def save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors in one step: a file is either the old one or the new one, whole."""
    temporary = path.with_suffix(".tmp")
    # contiguous() undoes channels_last, which the format cannot keep
    whole = {name: value.detach().contiguous() for name, value in tensors.items()}
    save_file(whole, temporary, metadata=metadata)
    temporary.replace(path)


def laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """Return a parameter's optimiser state in the parameter's memory format.

    The fused optimiser walks through both as they lie in memory, whatever their strides say.
    """
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def tensors_below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
