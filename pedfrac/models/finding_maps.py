"""Finding maps: where a network sees each class of finding, one map of logits per class.

A small head over the backbone's feature pyramid (top-down sums as in feature pyramid networks, Lin
et al., CVPR 2017). Not here: how boxes teach it (training.findings) and how a map becomes boxes
(scoring.finding_boxes).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pedfrac.config.training import MapShape
from pedfrac.errors import PedfracError

COARSEST = 32  # pixels per cell of the coarsest features that are used
WIDTH = 64  # channels at most
RARE = -4.0  # logit at which every cell starts: few cells hold a finding


class FindingMaps(nn.Module):
    """Maps (n, classes, h, w) of logits from features of a network, finest first.

    ``levels``: the network's feature stages that it reads, as ``forward_intermediates`` counts
    them. Raises PedfracError for a backbone whose features are no maps of the wanted stride.
    """

    def __init__(self, network: nn.Module, shape: MapShape):
        super().__init__()
        self.classes, self.pooled = shape.classes, shape.pooled
        self.levels, channels = _levels(network, shape.stride)
        width = min(WIDTH, channels[0])
        self.narrow = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in channels)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.score = nn.Conv2d(width, len(shape.classes), 1)
        nn.init.constant_(self.score.get_parameter("bias"), RARE)
        if shape.pooled:
            self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (n, classes, h, w) from the features (n, c, h', w') of the levels."""
        size = features[0].shape[-2:]
        whole: Any = 0
        for narrow, norm, level in zip(self.narrow, self.norms, features, strict=True):
            part = norm(narrow(level))
            if part.shape[-2:] != size:
                part = functional.interpolate(part, size=size, mode="bilinear")
            whole = whole + part
        mixed = functional.gelu(self.mix(functional.gelu(whole)))
        return self.score(mixed)

    def evidence(self, maps: Tensor) -> Tensor:
        """Return what the fracture map adds to the logit of a fracture (n,): a soft maximum.

        It is 0 where all cells are as at the start.
        """
        cells = maps[:, self.classes.index("fracture")].float().flatten(1)
        return self.gain * (cells.logsumexp(dim=1) - math.log(cells.shape[1]) - RARE)


def _levels(network: Any, stride: int) -> tuple[list[int], list[int]]:
    """Return the feature stages from a stride on, and their channels; of a stride the deepest."""
    info = getattr(network, "feature_info", None) or []
    deepest = {one["reduction"]: (at, one["num_chs"]) for at, one in enumerate(info)}
    chosen = [deepest[step] for step in sorted(deepest) if stride <= step <= COARSEST]
    if not chosen or not hasattr(network, "forward_intermediates"):
        raise PedfracError(
            f"fracture.maps: backbone {type(network).__name__} has features at strides "
            f"{sorted(deepest)}; maps need some from {stride} to {COARSEST}. Choose another "
            "backbone, or leave the maps out with fracture.maps.classes: none"
        )
    places, channels = zip(*chosen, strict=True)
    return list(places), list(channels)


@contextmanager
def kept_maps(model: Any) -> Iterator[list[Tensor]]:
    """Yield a list that fills with the maps (n, classes, h, w) of images that a network is asked.

    As probabilities, on the CPU. It stays empty for a network without maps.
    """
    found: list[Tensor] = []
    maps = getattr(model, "maps", None)
    if maps is None:
        yield found
        return

    def keep(_: nn.Module, __: Any, output: Tensor) -> None:
        found.append(output.detach().float().sigmoid().cpu())

    handle = maps.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()
