"""Heat maps: where in an image a network, or the mean of several, sees evidence for a class.

Not here: whether a map is right (localisation) or follows the network at all (random_weights).
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from pedfrac.errors import PedfracError
from pedfrac.models.classifier import ImageClassifier

METHODS = {"gradcam": GradCAM, "hirescam": HiResCAM, "gradcam++": GradCAMPlusPlus}
METHOD_NAMES = {"gradcam": "Grad-CAM", "hirescam": "HiResCAM", "gradcam++": "Grad-CAM++"}
FRACTURED = 1  # the class whose evidence is shown


def heat_maps(
    model: ImageClassifier,
    images: NDArray[np.uint8],
    target: int | NDArray[np.int64],
    method: str,
    *,
    device: torch.device,
    batch_size: int = 16,
) -> NDArray[np.float32]:
    """Return heat maps (n,S,S) in 0…1 of images (n,S,S) for one class, or one class per image.

    Each map is scaled to its own maximum; one without evidence for the class is zero everywhere.
    The model is left as it was. Raises PedfracError for a method that is not in METHODS, a backbone
    without a last map of channels or grid of tokens, and maps that are not finite.
    """
    if method not in METHODS:
        raise PedfracError(f"explanation.method {method!r}: allowed are {', '.join(METHODS)}")
    targets = [ClassifierOutputTarget(t) for t in np.broadcast_to(target, len(images)).tolist()]
    # A copy, since the library leaves hooks, gradients and evaluation mode on what it is given.
    model = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    layer, reshape = target_layer(model.network)
    maps = np.empty(images.shape, np.float32)
    cam = METHODS[method](model, [layer], reshape_transform=reshape)
    try:  # not "with": the library's __exit__ swallows IndexError
        for start in range(0, len(images), batch_size):
            some = slice(start, start + batch_size)
            batch = torch.from_numpy(np.ascontiguousarray(images[some])).to(device)
            maps[some] = cam(batch[:, None].float() / 255, targets[some])
    finally:
        cam.activations_and_grads.release()
    if broken := int((~np.isfinite(maps)).any(axis=(1, 2)).sum()):
        raise PedfracError(
            f"{broken} of {len(maps)} {method} heat maps are not finite: the weights are broken"
        )
    return maps


def mean_maps(
    models: Sequence[ImageClassifier],
    images: NDArray[np.uint8],
    target: int,
    method: str,
    *,
    device: torch.device,
) -> NDArray[np.float32]:
    """Return the mean (n,S,S) of the heat maps of networks whose probabilities are averaged.

    It is 1 only where all of them have their maximum: where they disagree it stays below.
    """
    maps = [heat_maps(model, images, target, method, device=device) for model in models]
    return np.mean(maps, axis=0, dtype=np.float32)


def target_layer(network: Any) -> tuple[nn.Module, Callable[[Tensor], Tensor] | None]:
    """Return the layer that heat maps of a timm network are taken from.

    With it, how its output becomes channels first (None: it is). It is the deepest feature stage,
    whose output is that of its last block: ``stages[-1].blocks[-1]`` of a ConvNeXt V2,
    ``layers[-1].blocks[-1]`` of a Swin. Of a ViT it is the first norm of the last block, since a
    class token alone sees what comes after. The layer raises PedfracError, when images go through
    the network, where its output is no map. Raises PedfracError where there is no such layer.
    """
    info = getattr(network, "feature_info", None)
    if not info:
        raise _refusal(network, "it does not say where its features are")
    layer, channels = network.get_submodule(info[-1]["module"]), info[-1]["num_chs"]
    reshape: Callable[[Tensor], Tensor] | None
    if _has_tokens(network, layer):
        layer, reshape = layer.norm1, partial(_tokens_to_map, network)
    elif str(getattr(network, "output_fmt", "NCHW")) == "NHWC":
        reshape = _channels_first
    else:
        reshape = None

    def start_gradient(module: nn.Module, _: Any, output: Any) -> Tensor:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        as_map = reshape(output) if reshape and isinstance(output, Tensor) else output
        if not isinstance(as_map, Tensor) or as_map.ndim != 4 or as_map.shape[1] != channels:
            raise _refusal(network, f"{info[-1]['module']} gives {shape}")
        # The gradient need not go further back than here; the clone may be changed in place.
        return output.detach().requires_grad_().clone()

    layer.register_forward_hook(start_gradient)
    return layer, reshape


def _has_tokens(network: Any, block: Any) -> bool:
    """Return whether a network's last stage is a block of a ViT: a token for each patch, in rows.

    Others with tokens are not taken: those of Hiera, for one, are in another order.
    """
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    return grid is not None and isinstance(getattr(block, "norm1", None), nn.Module)


def _tokens_to_map(network: Any, tokens: Tensor) -> Tensor:
    """Return tokens (n, prefix + h·w, c) as a map (n, c, h, w); as they are where they are none."""
    height, width = network.patch_embed.grid_size
    prefix = tokens.shape[1] - height * width if tokens.ndim == 3 else -1
    if prefix not in (0, getattr(network, "num_prefix_tokens", 0)):
        return tokens
    return tokens[:, prefix:].unflatten(1, (height, width)).permute(0, 3, 1, 2)


def _channels_first(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2) if output.ndim == 4 else output


def _refusal(network: Any, found: str) -> PedfracError:
    name = getattr(network, "pretrained_cfg", {}).get("architecture", type(network).__name__)
    return PedfracError(
        f"backbone {name}: no heat maps, {found}; supported are timm networks whose last feature "
        "stage is a map of channels in two dimensions, such as ConvNeXt, Swin, ResNet and "
        "EfficientNet, and ViTs, whose tokens are a grid of patches"
    )
