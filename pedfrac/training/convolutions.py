"""Convolutions as a processor learns them fastest: the same sums as torch's, by matrix products.

On a CPU the gradient of the weights is the slow part of torch's convolutions in float32. Matrix
products take a quarter of a layer's time for depthwise ones with wide kernels on the smallest maps,
and up to a sixth less for pointwise ones (``benchmarks/convolution_speed.py``). Parameters keep
their names and shapes, so weights are those of the network. Not here: when to learn so (learner).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MAP = 16  # places of the largest map whose pairs of places are cheaper than torch's gradient
WIDE = 5  # side of the smallest kernel for which they are


def by_matrix_products(network: nn.Module) -> None:
    """Let the convolutions of a network learn by matrix products where these are faster.

    In place. For float32 on a CPU, and for maps that lie channels_last; others are copied so.
    """
    for module in network.modules():
        # not those of other classes, which may do more than convolve
        if type(module) is nn.Conv2d and module.padding_mode == "zeros":
            if _is_pointwise(module):
                module.__class__ = PointwiseConv2d
            elif _is_wide_depthwise(module):
                module.__class__ = DepthwiseConv2d


class PointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution as one matrix product over all places."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the maps (n, c', h, w) of maps (n, c, h, w)."""
        places = functional.linear(input.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return places.permute(0, 3, 1, 2)


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel by itself, whose weights learn by pairs of places."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the maps (n, c, h', w') of maps (n, c, h, w)."""
        if input.shape[2] * input.shape[3] > MAP or not torch.is_grad_enabled():
            return super().forward(input)
        out: Tensor = _Depthwise.apply(input, self.weight, self.stride, self.padding)
        return out if self.bias is None else out + self.bias[:, None, None]


class _Depthwise(torch.autograd.Function):
    """The gradient of a weight is a sum over all pairs of an output and an input place it joins.

    The products of all pairs are one matrix product a channel, over the batch.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, stride: Any, padding: Any) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(maps, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,), (maps, weight) = gradients, ctx.saved_tensors
        to_maps = None
        if ctx.needs_input_grad[0]:
            to_maps = torch.ops.aten.convolution_backward(
                gradient, maps, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0),
                len(weight), (True, False, False),
            )[0]  # fmt: skip
        sides = gradient.shape[2:], maps.shape[2:], weight.shape[2:], ctx.stride, ctx.padding
        down, across = (_joined(*side).to(maps) for side in zip(*sides, strict=True))
        # plain matrices, since torch's compiler loses its way in products of seven dimensions
        to_weight = _pairs(gradient, maps).flatten(1) @ _outer(down, across)
        return to_maps, to_weight.view_as(weight), None, None


def _pairs(gradient: Tensor, maps: Tensor) -> Tensor:
    """Return what each pair of an output and an input place has in common: (c, h'·w', h·w)."""
    outputs = gradient.permute(1, 2, 3, 0).flatten(1, 2)
    inputs = maps.permute(1, 0, 2, 3).flatten(2)
    return torch.bmm(outputs, inputs)


def _joined(outputs: int, inputs: int, kernel: int, stride: int, padding: int) -> Tensor:
    """Return which weight joins an output and an input place along a side: (out, in, weight)."""
    first = torch.arange(outputs)[:, None, None] * stride - padding
    return first + torch.arange(kernel) == torch.arange(inputs)[:, None]


def _outer(down: Tensor, across: Tensor) -> Tensor:
    """Return which weight joins a pair of places, from those of both sides: (pair, weight)."""
    rows, columns = down[:, None, :, None, :, None], across[None, :, None, :, None, :]
    return (rows * columns).reshape(-1, down.shape[2] * across.shape[2])


def _is_pointwise(module: nn.Conv2d) -> bool:
    plain = module.kernel_size == module.stride == (1, 1) and module.padding == (0, 0)
    return plain and module.groups == 1


def _is_wide_depthwise(module: nn.Conv2d) -> bool:
    own = module.groups == module.in_channels == module.out_channels
    plain = module.dilation == (1, 1) and not isinstance(module.padding, str)
    return own and plain and min(module.kernel_size) >= WIDE
