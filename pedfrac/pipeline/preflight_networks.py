"""Preflight of networks: built, run once and explained without memory or arithmetic.

On torch's meta device tensors have shapes and no values, so that a network of any size takes less
than a second.
"""

import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from timm.models import get_pretrained_cfg

from pedfrac.age_groups import AgeGroups
from pedfrac.bundle.bundle import FRACTURE_CLASSES
from pedfrac.compute.devices import resolve_devices
from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.training import HeadKind, ModelConfig
from pedfrac.errors import PedfracError
from pedfrac.models.classifier import ImageClassifier, build_model, load_weight_file
from pedfrac.models.heads import make_head
from pedfrac.pipeline.preflight_scope import WHOLE, Scope

SECONDS = 5  # that a server may take to answer
FLOAT = 4  # bytes of a weight


def network_faults(config: RetrainConfig, scope: Scope = WHOLE) -> Iterator[tuple[str, str]]:
    """Yield what would stop a training or its heat maps: field and what is wrong with it."""
    checkpointing = config.runtime.gradient_checkpointing
    networks: list[tuple[str, ModelConfig, HeadKind | None]] = []
    if scope.trains_fracture:
        networks.append(("fracture.model", config.fracture.model, None))
    if scope.trains_age:
        networks.append(("age.model", config.age.model, config.age.head))
    for field, model, head in networks:
        try:
            check_network(model, config.cohort.ages, head, checkpointing, heat_maps=not scope.alone)
        except PedfracError as error:
            yield field, str(error)
            continue
        try:
            check_weights(model, config.cohort.ages, head)
        except PedfracError as error:
            yield f"{field}.weights", str(error)
    if config.runtime.dispatch == "local":
        try:
            resolve_devices(config.runtime.device, config.runtime.devices)
        except PedfracError as error:
            yield "runtime.device", str(error)


def check_network(
    model: ModelConfig,
    ages: AgeGroups,
    head: HeadKind | None,
    checkpointing: bool = False,
    *,
    heat_maps: bool = True,
) -> None:
    """Build a network without its weights and run it once; raise PedfracError where it cannot be.

    ``head`` of an age classifier; None: a fracture network, of which ``heat_maps`` may be wanted.
    """
    from pedfrac.explanation.saliency import target_layer  # grad-cam is slow to import

    device, network = _shape_of(model, ages, head)
    if checkpointing:
        network.keep_few_activations()
        network.network.set_grad_checkpointing(False)  # type: ignore[operator]
    if head is None and heat_maps:
        target_layer(network.network)
    images = torch.empty(2, 1, model.size, model.size, device=device)
    try:
        with torch.no_grad():
            raw = network.network(images)
            network.head(raw)
    except PedfracError:
        raise
    except Exception as error:  # a network that does not take such images: each its own type
        raise PedfracError(
            f"{model.backbone} does not take images of {model.size} px ({error}); set another "
            "size or other options"
        ) from None
    found = tuple(raw.shape) if isinstance(raw, torch.Tensor) else type(raw).__name__
    if found != (2, network.head.outputs):
        raise PedfracError(
            f"{model.backbone} with options {model.options} gives {found} for 2 images; "
            f"{(2, network.head.outputs)} are needed: leave out the options that change its head"
        )


def check_weights(model: ModelConfig, ages: AgeGroups, head: HeadKind | None) -> None:
    """Raise PedfracError where the weights that a network starts from cannot be had or loaded."""
    if model.weights == "hub":
        _check_hub(model)
    elif model.weights != "none":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that values are not copied to the meta device
            load_weight_file(_shape_of(model, ages, head)[1].network, model)


def weight_bytes(model: ModelConfig, ages: AgeGroups, head: HeadKind | None) -> int:
    """Return the bytes of a network's weights; 0 where it cannot be built."""
    try:
        network = _shape_of(model, ages, head)[1]
    except PedfracError:
        return 0
    return FLOAT * sum(one.numel() for one in network.state_dict().values())


def _shape_of(
    model: ModelConfig, ages: AgeGroups, head: HeadKind | None
) -> tuple[str, ImageClassifier]:
    """Return a network on the meta device, or on the CPU if it cannot be built there."""
    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                own: Any = len(FRACTURE_CLASSES) if head is None else make_head(head, ages)
                return device, build_model(model, own, load_weights=False).eval()
        except NotImplementedError:  # it looks at values while it is built
            continue
        except PedfracError as error:
            if device == "cpu" or not isinstance(error.__cause__, NotImplementedError):
                raise
    raise PedfracError(f"{model.backbone} cannot be built")


def _check_hub(model: ModelConfig) -> None:
    published: Any = get_pretrained_cfg(model.backbone)
    advice = "set weights to a file, or to none for random weights"
    if published is None or not published.has_weights:
        raise PedfracError(f"{model.backbone}: timm has no weights of it; {advice}")
    if published.hf_hub_id:
        reason = _missing_on_hub(published.hf_hub_id)
    else:
        reason = _missing_at(published.url)
    if reason:
        raise PedfracError(
            f"weights of {model.backbone} are not here and cannot be fetched ({reason}); "
            f"fetch them on a machine with internet and {advice}"
        )


def _missing_on_hub(repository: str) -> str:
    """Return why weights can neither be found in the hub's cache nor fetched; empty: they can."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    names = ("model.safetensors", "pytorch_model.bin")
    if any(isinstance(try_to_load_from_cache(repository, name), str) for name in names):
        return ""
    reason = ""
    for name in names:
        try:
            get_hf_file_metadata(hf_hub_url(repository, name), timeout=SECONDS)
            return ""
        except Exception as error:  # offline, refused, not there: each its own type
            reason = reason or type(error).__name__
    return reason


def _missing_at(url: str) -> str:
    if (Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]).is_file():
        return ""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS):
            return ""
    except (OSError, ValueError) as error:
        return str(error)
