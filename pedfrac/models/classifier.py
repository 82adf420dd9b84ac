"""Networks: any timm backbone on one grey channel, with weights from the hub, a file or none.

Not here: training, and which layer a heat map is taken from.
"""

import difflib
import inspect
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import adapt_input_conv, get_pretrained_cfg, load_state_dict
from torch import Tensor, nn

from pedfrac.config.training import MapShape, ModelConfig
from pedfrac.errors import PedfracError
from pedfrac.models.finding_maps import FindingMaps
from pedfrac.models.heads import Classes, Head


class ImageClassifier(nn.Module):
    """A timm network that takes grey images and normalises them itself.

    In: float (batch, 1, size, size) in 0…1. Out: what ``head`` makes probabilities of the classes
    from, in most networks a logit for each, (batch, classes).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: float,
        std: float,
        head: Head,
        maps: FindingMaps | None = None,
    ):
        super().__init__()
        self.network = network
        self.head = head
        self.maps = maps
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: Tensor) -> Tensor:
        """Return the head's output (batch, m) of images (batch, 1, size, size) in 0…1."""
        return self.look(images)[0]

    def look(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the head's output of images, and their finding maps if the network has any."""
        normalised = (images - self.mean) / self.std
        if self.maps is None:
            return self.head(self.network(normalised)), None
        network: Any = self.network
        last, features = network.forward_intermediates(
            normalised, indices=self.maps.levels, output_fmt="NCHW"
        )
        raw, maps = network.forward_head(last), self.maps(features)
        if self.maps.pooled:
            evidence = self.maps.evidence(maps)
            raw = raw.float() + torch.stack([torch.zeros_like(evidence), evidence], dim=1)
        return self.head(raw), maps

    @property
    def map_classes(self) -> tuple[str, ...]:
        """The classes of which the network has a finding map."""
        return () if self.maps is None else self.maps.classes

    def keep_few_activations(self) -> None:
        """Compute activations again in the backward pass: less memory, about a third more time.

        Raises PedfracError where the network cannot.
        """
        try:
            self.network.set_grad_checkpointing(True)  # type: ignore[operator]
        except (AttributeError, AssertionError):
            raise PedfracError(
                f"runtime.gradient_checkpointing: {type(self.network).__name__} cannot; set it to "
                "false"
            ) from None

    def answers(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the classes' probabilities (batch, k) and the ages in years (batch,), if any."""
        output = self(images).float()
        return self.head.probabilities(output), self.head.years(output)


def build_model(
    config: ModelConfig,
    head: Head | int,
    *,
    load_weights: bool = True,
    maps: MapShape | None = None,
) -> ImageClassifier:
    """Return the configured network with a head (or a number of classes), on the CPU.

    With ``load_weights`` off its weights are random, for a caller who loads trained ones.
    ``maps``: finding maps beside the head, of random weights. Raises PedfracError for an unknown
    backbone, options or maps that it does not accept, and weights that are not available or do not
    fit.
    """
    _refuse_unknown(config.backbone)
    pretrained = load_weights and config.weights == "hub"
    head = Classes(head) if isinstance(head, int) else head
    network = _create(config, head.outputs, pretrained=pretrained)
    if load_weights and config.weights not in ("hub", "none"):
        load_weight_file(network, config)
    mean, std = _grey_statistics(network)
    return ImageClassifier(network, mean, std, head, FindingMaps(network, maps) if maps else None)


def _refuse_unknown(backbone: str) -> None:
    name, _, tag = backbone.partition(".")
    if timm.is_model(name):
        known = [one.partition(".")[2] for one in timm.list_pretrained(f"{name}.*")]
        if tag and tag not in known:
            raise PedfracError(
                f"backbone {backbone!r}: {name} has no weights tagged {tag!r}; "
                f"allowed are {', '.join(known) or 'none'}"
            )
        return
    near = difflib.get_close_matches(backbone, timm.list_models(), n=3)
    hint = f"; near it: {', '.join(near)}" if near else ""
    raise PedfracError(f"backbone {backbone!r}: timm has no such model{hint}")


def _create(config: ModelConfig, classes: int, *, pretrained: bool) -> nn.Module:
    options: dict[str, Any] = {**config.options, "in_chans": 1, "num_classes": classes}
    published = get_pretrained_cfg(config.backbone)
    if published is not None and published.fixed_input_size:
        options["img_size"] = config.size
    try:
        return timm.create_model(config.backbone, pretrained=pretrained, **options)
    except OSError as error:
        raise PedfracError(
            f"weights of {config.backbone} cannot be fetched from the hub "
            f"({type(error).__name__}). Fetch them on a machine with internet and set "
            "model.weights to the file, or set it to 'none' for random weights"
        ) from error
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise PedfracError(
            f"{config.backbone} cannot be built with {config.options} at {config.size} px: {error}"
        ) from error


def load_weight_file(network: Any, config: ModelConfig) -> None:
    """Load a file of weights into a timm network in place; a head of other classes stays random.

    Raises PedfracError where there is no such file, it cannot be read, or does not fit.
    """
    path = Path(config.weights)
    if not path.is_file():
        raise PedfracError(
            f"model.weights {config.weights!r}: no such file; allowed are 'hub', 'none' and a "
            "file of weights (.safetensors, .pth)"
        )
    try:
        weights = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # each format has its own errors for a broken file
        raise PedfracError(f"{path}: cannot be read as weights ({error})") from error
    wanted = network.state_dict()
    try:
        renamed = _to_timm_names(weights, network, config.backbone)
    except Exception as error:  # timm's renaming stumbles over another network's tensors
        raise PedfracError(
            f"{path}: does not fit {config.backbone} ({type(error).__name__}: {error})"
        ) from error
    weights = {name: _to_grey(tensor, wanted.get(name)) for name, tensor in renamed.items()}
    heads = network.pretrained_cfg["classifier"]
    heads = [heads] if isinstance(heads, str) else heads  # a distilled ViT has two
    head = {f"{name}.{part}" for name in heads for part in ("weight", "bias")}
    fitting = {
        name: tensor
        for name, tensor in weights.items()
        if name not in head or tensor.shape == wanted[name].shape
    }
    try:
        missing, unknown = network.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        raise PedfracError(f"{path}: does not fit {config.backbone}: {error}") from error
    if left := [name for name in missing if name not in head] + list(unknown):
        raise PedfracError(
            f"{path}: does not fit {config.backbone}: {len(left)} tensors missing or unknown, "
            f"such as {', '.join(left[:3])}"
        )


def _to_grey(weight: Tensor, wanted: Tensor | None) -> Tensor:
    """Fold the colour channels of a first convolution into one by their sum.

    A grey image copied to three channels then gives the very same activations.
    """
    is_colour_stem = (
        wanted is not None
        and weight.ndim == 4
        and weight.shape[1] == 3
        and wanted.shape[1] == 1
        and weight.shape[0] == wanted.shape[0]
    )
    return adapt_input_conv(1, weight) if is_colour_stem else weight


def _to_timm_names(weights: Any, network: nn.Module, backbone: str) -> dict[str, Tensor]:
    """Rename an original publication's tensors as timm does when it loads from the hub."""
    family = inspect.getmodule(timm.model_entrypoint(backbone.partition(".")[0]))
    rename = getattr(family, "checkpoint_filter_fn", None)
    return rename(weights, network) if rename else weights


def _grey_statistics(network: Any) -> tuple[float, float]:
    """Return mean and standard deviation that the pretraining used, averaged over colours."""
    published = network.pretrained_cfg
    mean, std = published.get("mean", (0.5,)), published.get("std", (0.25,))
    return sum(mean) / len(mean), sum(std) / len(std)
