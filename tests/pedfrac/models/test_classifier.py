"""The network builder: grey input, weights from files, and what it refuses."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from pedfrac.config.training import ModelConfig
from pedfrac.errors import PedfracError
from pedfrac.models.classifier import build_model

SMALL = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}


def small(weights: str = "none", **changes) -> ModelConfig:
    fields = {"backbone": "convnextv2_atto", "size": 32, "options": SMALL, "weights": weights}
    return ModelConfig(**(fields | changes))


@pytest.fixture
def colour_network(tmp_path):
    """A three-channel network of 1000 classes and its saved weights."""
    torch.manual_seed(1)
    network = timm.create_model("convnextv2_atto", **SMALL).eval()
    path = tmp_path / "colour.safetensors"
    save_file(network.state_dict(), path)
    return network, path


def test_grey_image_means_the_same_to_a_colour_network(colour_network):
    colour, path = colour_network
    model = build_model(small(str(path)), 2).eval()
    image = torch.rand(2, 1, 32, 32)
    normalised = ((image - model.mean) / model.std).expand(-1, 3, -1, -1)
    with torch.no_grad():
        theirs = colour.forward_features(normalised)
        ours = model.network.forward_features((image - model.mean) / model.std)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_torch_file_of_weights_loads_as_safetensors_do(colour_network, tmp_path):
    colour, path = colour_network
    torch.save({"state_dict": colour.state_dict()}, tmp_path / "w.pth")
    ours = build_model(small(str(tmp_path / "w.pth")), 2).network.stem[0].weight
    torch.testing.assert_close(ours, colour.stem[0].weight.sum(1, keepdim=True))


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"something.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(PedfracError, match="does not fit convnextv2_atto"):
        build_model(small(str(tmp_path / "other.safetensors")), 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "convnextv9_tiny"}, "no such model"),
        ({"weights": "nowhere.pth"}, "no such file"),
        ({"options": {"depht": 3}}, "depht"),
    ],
)
def test_refusals_name_what_was_found(changes, message):
    with pytest.raises(PedfracError, match=message):
        build_model(small(**changes), 2)


def test_swin_takes_the_configured_size():
    options = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    config = ModelConfig(
        backbone="swin_tiny_patch4_window7_224", size=48, options=options, weights="none"
    )
    assert build_model(config, 5)(torch.rand(2, 1, 48, 48)).shape == (2, 5)


def test_hub_out_of_reach_says_what_to_do(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(PedfracError, match="set .*weights to the file"):
        build_model(small("hub"), 2)
