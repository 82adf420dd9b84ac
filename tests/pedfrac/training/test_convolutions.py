"""Convolutions by matrix products: the sums of torch's own, in any shape and stride."""

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pedfrac.config.training import ModelConfig
from pedfrac.models.classifier import build_model
from pedfrac.training import convolutions
from pedfrac.training.convolutions import DepthwiseConv2d, PointwiseConv2d, by_matrix_products


def learned(network, maps):
    """Return output, gradient of the maps and those of all parameters."""
    network.zero_grad()
    maps = maps.clone().requires_grad_()
    output = network(maps)
    # of unequal weights, so that no two places could be mistaken for each other
    (output * torch.linspace(0.5, 2, output.numel()).view(output.shape)).sum().backward()
    return [output.detach(), maps.grad, *(one.grad for one in network.parameters())]


def assert_alike(network, maps):
    ours = copy.deepcopy(network)
    by_matrix_products(ours)
    assert ours.state_dict().keys() == network.state_dict().keys()
    for expected, found in zip(learned(network, maps), learned(ours, maps), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    return ours


@settings(max_examples=40, deadline=None)
@given(
    images=st.integers(1, 5),
    channels=st.integers(2, 7),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    kernel=st.sampled_from([5, 7]),
    stride=st.integers(1, 3),
    bias=st.booleans(),
)
def test_depthwise_ones_learn_what_torchs_learn(
    images, channels, height, width, kernel, stride, bias
):
    torch.manual_seed(0)
    own = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=bias)
    ours = assert_alike(own, torch.randn(images, channels, height, width))
    assert type(ours) is DepthwiseConv2d


@settings(max_examples=20, deadline=None)
@given(
    images=st.integers(1, 3), into=st.integers(1, 9), out=st.integers(1, 9), side=st.integers(1, 9)
)
def test_pointwise_ones_learn_what_torchs_learn(images, into, out, side):
    torch.manual_seed(0)
    maps = torch.randn(images, into, side, side).contiguous(memory_format=torch.channels_last)
    assert type(assert_alike(nn.Conv2d(into, out, 1), maps)) is PointwiseConv2d


def test_small_maps_alone_go_by_pairs_of_places(monkeypatch):
    asked = []
    own = convolutions._Depthwise.apply
    monkeypatch.setattr(convolutions._Depthwise, "apply", lambda *of: asked.append(of) or own(*of))
    network = nn.Conv2d(4, 4, 7, padding=3, groups=4)
    by_matrix_products(network)
    network(torch.randn(2, 4, 8, 8))
    with torch.no_grad():
        network(torch.randn(2, 4, 4, 4))
    assert not asked
    network(torch.randn(2, 4, 4, 4))
    assert len(asked) == 1


def test_other_convolutions_stay():
    others = nn.ModuleList(
        [
            nn.Conv2d(4, 8, 3),
            nn.Conv2d(4, 4, 3, groups=4),
            nn.Conv2d(4, 8, 5, groups=4),
            nn.Conv2d(4, 4, 5, groups=4, dilation=2),
            nn.Conv2d(4, 4, 5, groups=4, padding="same"),
            nn.Conv2d(4, 4, 5, groups=4, padding=2, padding_mode="reflect"),
            nn.Conv2d(4, 8, 1, stride=2),
            nn.Conv2d(4, 8, 1, groups=2),
        ]
    )
    by_matrix_products(others)
    assert {type(one) for one in others} == {nn.Conv2d}


def test_a_network_learns_as_before():
    small = {"depths": [1, 1, 1, 1], "dims": [8, 12, 16, 24], "drop_path_rate": 0.0}
    network = build_model(
        ModelConfig(backbone="convnextv2_atto", size=128, weights="none", options=small), 2
    )
    network.to(memory_format=torch.channels_last)
    ours = assert_alike(network, torch.rand(4, 1, 128, 128))
    kinds = {type(one) for one in ours.modules()}
    assert {PointwiseConv2d, DepthwiseConv2d} <= kinds
