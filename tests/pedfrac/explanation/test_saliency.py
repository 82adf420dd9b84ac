"""Heat maps lie where the evidence is, for every backbone, and networks without any are named."""

import numpy as np
import pytest
import torch
from small_networks import CONVNEXT, CPU, NETWORKS, SWIN, brightness, build, noise, square
from torch import nn

from pedfrac.errors import PedfracError
from pedfrac.explanation.localisation import localisation
from pedfrac.explanation.saliency import METHODS, heat_maps, mean_maps
from pedfrac.models.classifier import ImageClassifier
from pedfrac.models.heads import Classes


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network[0])
@pytest.mark.parametrize("method", METHODS)
def test_maps_are_finite_and_scaled_for_every_backbone(network, method):
    maps = heat_maps(build(*network), noise(3, network[1]), 1, method, device=CPU, batch_size=2)
    assert maps.shape == (3, network[1], network[1])
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    assert maps.max() <= 1


@pytest.mark.parametrize(
    ("network", "block"),
    [(CONVNEXT, lambda n: n.stages[-1].blocks[-1]), (SWIN, lambda n: n.layers[-1].blocks[-1])],
    ids=["convnext", "swin"],
)
def test_the_map_is_that_of_the_last_block(network, block):
    """Grad-CAM by its formula (Selvaraju 2017, equations 1 and 2) on the block's output."""
    model, images = build(*network).eval(), noise(1, network[1])
    seen = {}
    hook = block(model.network).register_forward_hook(lambda *a: seen.update(out=a[2]))
    logits = model(torch.from_numpy(images)[:, None].float() / 255)
    hook.remove()
    for target in (0, 1):
        (gradient,) = torch.autograd.grad(logits[0, target], seen["out"], retain_graph=True)
        last = network is SWIN
        axes = (1, 2) if last else (2, 3)
        weighted = gradient.mean(axes, keepdim=True) * seen["out"]
        expected = torch.relu(weighted.sum(3 if last else 1))[0].detach()
        expected = (expected - expected.min()) / (expected.max() - expected.min() + 1e-12)
        map_ = heat_maps(model, images, target, "gradcam", device=CPU)
        wide = torch.nn.functional.interpolate(
            expected[None, None], network[1], mode="bilinear", align_corners=False
        )[0, 0]
        wide = (wide - wide.min()) / (wide.max() - wide.min() + 1e-12)
        np.testing.assert_allclose(map_[0], wide, atol=2e-3)


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("vit_tiny_patch16_224", {"depth": 2}),
        ("vit_tiny_patch16_224", {"depth": 2, "global_pool": "avg"}),
        ("deit_tiny_distilled_patch16_224", {"depth": 2}),
    ],
)
def test_the_map_of_a_vit_is_that_of_its_patches(backbone, options):
    """Grad-CAM by its formula on the patches' tokens, which lie row by row behind the prefix."""
    model, images = build(backbone, 64, options).eval(), noise(1, 64)
    # as built, its head and tokens are nearly zero
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    seen = {}
    block = model.network.blocks[-1].norm1
    hook = block.register_forward_hook(lambda *a: seen.update(out=a[2]))
    logits = model(torch.from_numpy(images)[:, None].float() / 255)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[0, 1], seen["out"])
    prefix = seen["out"].shape[1] - 16
    assert prefix == model.network.num_prefix_tokens >= (options.get("global_pool") != "avg")
    weights, tokens = gradient[0, prefix:].mean(0), seen["out"][0, prefix:]
    expected = torch.relu((tokens * weights).sum(1)).reshape(4, 4).detach()
    assert expected.any()
    wide = torch.nn.functional.interpolate(
        expected[None, None], 64, mode="bilinear", align_corners=False
    )[0, 0]
    map_ = heat_maps(model, images, 1, "gradcam", device=CPU)[0]
    np.testing.assert_allclose(map_, (wide - wide.min()) / (wide.max() - wide.min()), atol=2e-3)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_peak_lies_in_the_square_that_the_network_answers_to(method, channels_last):
    places = [(8, 40), (44, 12), (24, 24)]
    images = np.stack([square(64, x, y, 12) for x, y in places])
    boxes = [np.array([[x, y, x + 12, y + 12]], np.float32) for x, y in places]
    maps = heat_maps(brightness(channels_last=channels_last), images, 1, method, device=CPU)
    found = localisation(maps, boxes)
    assert found.pointing.all()
    assert (found.energy > 0.6).all()
    np.testing.assert_allclose(found.chance, (12 / 64) ** 2)


def test_each_image_may_have_a_target_of_its_own():
    images = np.stack([square(64, 8, 40, 12)] * 2)
    both = heat_maps(brightness(), images, np.array([0, 1]), "gradcam", device=CPU)
    for target in (0, 1):
        alone = heat_maps(brightness(), images[:1], target, "gradcam", device=CPU)
        np.testing.assert_array_equal(both[target], alone[0])
    assert both[0, 46, 14] < 0.1 < both[1, 46, 14]


def test_no_evidence_makes_a_map_of_zeros():
    images = np.stack([square(64, 8, 40, 12)])
    for method in METHODS:
        for sign in (0, -1):
            assert not heat_maps(brightness(sign=sign), images, 1, method, device=CPU).any()


def test_the_model_is_left_as_it_was():
    model = build(*CONVNEXT).train()
    heat_maps(model, noise(2, 64), 1, "gradcam", device=CPU)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_no_images_make_no_maps():
    assert heat_maps(build(*CONVNEXT), noise(0, 64), 1, "gradcam", device=CPU).shape == (0, 64, 64)


def test_an_index_error_is_not_swallowed():
    with pytest.raises(IndexError):
        heat_maps(build(*CONVNEXT), noise(1, 64), 7, "gradcam", device=CPU)


def test_broken_weights_are_named():
    model = build(*CONVNEXT)
    model.network.stages[-1].blocks[-1].mlp.fc2.bias.data.fill_(torch.nan)
    with pytest.raises(PedfracError, match="2 of 2 gradcam heat maps are not finite"):
        heat_maps(model, noise(2, 64), 1, "gradcam", device=CPU)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (("mixer_s32_224", 64, {}), "mixer_s32_224: no heat maps, blocks.7 gives"),
        (("hrnet_w18_small", 64, {}), "hrnet_w18_small: no heat maps, stage4 gives list"),
    ],
)
def test_networks_without_a_last_map_are_refused_by_name(network, message):
    with pytest.raises(PedfracError, match=message):
        heat_maps(build(*network), noise(1, network[1]), 1, "gradcam", device=CPU)


def test_a_network_that_tells_nothing_and_an_unknown_method_are_refused():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    model = ImageClassifier(flat, 0.0, 1.0, Classes(2))
    with pytest.raises(PedfracError, match="Sequential: no heat maps"):
        heat_maps(model, noise(1, 4), 1, "gradcam", device=CPU)
    with pytest.raises(PedfracError, match="'scorecam': allowed are gradcam, hirescam, gradcam"):
        heat_maps(model, noise(1, 4), 1, "scorecam", device=CPU)


def test_the_mean_of_networks_is_that_of_their_maps():
    images = np.stack([square(64, 8, 40, 12)])
    bright, blind = brightness(), brightness(sign=0)
    alone = heat_maps(bright, images, 1, "gradcam", device=CPU)
    both = mean_maps([bright, blind], images, 1, "gradcam", device=CPU)
    np.testing.assert_allclose(both, alone / 2)
    np.testing.assert_array_equal(mean_maps([bright] * 2, images, 1, "gradcam", device=CPU), alone)
