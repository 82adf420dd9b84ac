"""Finding maps: any backbone's features make them, and a network without them is as it was."""

import copy

import pytest
import torch
from torch import nn

from pedfrac.config.training import MapShape, ModelConfig
from pedfrac.errors import PedfracError
from pedfrac.models.classifier import build_model
from pedfrac.models.finding_maps import FindingMaps, kept_maps

BACKBONES = {
    "convnextv2_atto": 64,
    "swin_tiny_patch4_window7_224": 224,
    "tf_efficientnet_lite0": 64,
    "resnet18": 64,
    "vit_tiny_patch16_224": 224,
}
TWO = ("fracture", "metal")


def network(backbone="convnextv2_atto", size=64, **shape):
    torch.manual_seed(0)
    maps = MapShape(**shape) if shape else None
    config = ModelConfig(backbone=backbone, size=size, weights="none")
    return build_model(config, 2, maps=maps).eval()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_any_backbone_gives_a_map_for_each_class(backbone):
    size = BACKBONES[backbone]
    model = network(backbone, size, classes=TWO, stride=16)
    images = torch.rand(1, 1, size, size)
    output, maps = model.look(images)
    assert maps.shape == (1, 2, size // 16, size // 16)
    # maps that are not pooled are beside the image's logits, and leave them as they are
    torch.testing.assert_close(output, network(backbone, size)(images))


def test_a_finer_stride_gives_finer_maps():
    images = torch.rand(1, 1, 64, 64)
    assert network(classes=TWO, stride=8).look(images)[1].shape[-2:] == (8, 8)


def test_a_backbone_without_features_of_that_stride_is_refused():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(PedfracError, match=r"fracture\.maps\.classes: none"):
        FindingMaps(plain, MapShape(classes=TWO))


def test_the_pooled_fracture_map_adds_to_the_fracture_alone():
    plain, pooled = (
        network(classes=("metal", "fracture"), pooled=one).eval() for one in (False, True)
    )
    images = torch.rand(3, 1, 64, 64)
    with torch.inference_mode():
        added = pooled(images) - plain(images)
        bias = pooled.maps.score.bias
        bias[1] += 3  # a fracture anywhere raises the fracture's logit by the learned gain
        raised = pooled(images) - plain(images)
        bias[0] += 3  # metal does not
        same = pooled(images) - plain(images)
    assert (added[:, 0] == 0).all()
    torch.testing.assert_close(raised[:, 1] - added[:, 1], torch.full((3,), 1.5))
    torch.testing.assert_close(same, raised)


def test_kept_maps_are_probabilities_of_every_batch_that_is_asked():
    model = network(classes=TWO)
    with kept_maps(model) as found, torch.inference_mode():
        for count in (2, 1):
            model.answers(torch.rand(count, 1, 64, 64))
    assert [len(one) for one in found] == [2, 1]
    assert all(((one > 0) & (one < 1)).all() for one in found)
    with kept_maps(network()) as found:
        pass
    assert found == []


def test_a_copy_looks_as_the_network_does():
    model = network(classes=TWO, pooled=True)
    images = torch.rand(1, 1, 64, 64)
    for one, other in zip(model.look(images), copy.deepcopy(model).look(images), strict=True):
        torch.testing.assert_close(one, other)
