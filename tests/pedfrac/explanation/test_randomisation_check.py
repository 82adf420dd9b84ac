"""The map of what was learned goes with it; one that owes nothing to the weights is found out."""

import numpy as np
import pytest
import torch
from small_networks import CPU, NETWORKS, brightness, build, noise, square
from torch import nn

from pedfrac.explanation.metrics import Stage
from pedfrac.explanation.randomisation_check import _verdict, random_weights_metrics
from pedfrac.models.classifier import ImageClassifier
from pedfrac.models.heads import Classes
from pedfrac.statistics.intervals import Interval
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def check(models, images):
    def bootstrap(patients):
        return PatientBootstrap(patients, 0, 0)

    size = images.shape[1]
    windows = [(0, 0, size, size)] * len(images)
    patients = np.arange(len(images))
    return random_weights_metrics(
        models, images, windows, patients, "gradcam", bootstrap, device=CPU
    )


class Fixed(nn.Module):
    """Answers to brightness by two features that are alike: shuffled weights change nothing."""

    def __init__(self):
        super().__init__()
        self.features = nn.AvgPool2d(4)
        self.feature_info = [{"module": "features", "num_chs": 1}]
        self.head = nn.Linear(1, 2, bias=False)
        self.head.weight.data.fill_(1.0)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def squares(n: int):
    places = np.random.default_rng(0).integers(0, 50, (n, 2))
    return np.stack([square(64, x, y, 12) for x, y in places])


def test_a_map_that_owes_nothing_to_the_weights_is_found_out():
    metrics = check([ImageClassifier(Fixed(), 0.0, 1.0, Classes(2))], squares(8))
    assert metrics.changes is False and metrics.changes_from is None
    assert metrics.stages[-1].similarity.value == pytest.approx(1)


def bottleneck() -> ImageClassifier:
    """Sees bright squares by one of many features: shuffled, the head asks for others."""
    torch.manual_seed(0)
    network = nn.Sequential()
    network.features = nn.Conv2d(1, 32, 1)
    network.feature_info = [{"module": "features", "num_chs": 32}]
    network.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.head = nn.Linear(32, 2)
    nn.init.zeros_(network.head.weight)
    network.features.weight.data[0] = 1
    network.head.weight.data[1, 0] = 5
    return ImageClassifier(network, 0.0, 1.0, Classes(2))


def test_a_map_that_was_learned_goes_with_the_weights():
    metrics = check([bottleneck()], squares(12))
    assert [stage.name for stage in metrics.stages] == ["head", "features"]
    assert metrics.changes is True
    assert metrics.changes_from == "head"
    assert metrics.stages[-1].similarity.high < 0.5


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network[0])
def test_every_weight_of_a_network_is_shuffled_from_the_head_down(network):
    model = build(*network)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    metrics = check([model], noise(3, network[1]))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], msg=name)  # the model is left as it was
    names = [stage.name for stage in metrics.stages]
    info = [one["module"] for one in model.network.feature_info if "." in one["module"]]
    assert [name for name in names if name in info] == info[::-1]
    children = dict(model.network.named_children())
    held = {name for name, child in children.items() if [*child.parameters()]}
    assert {name.partition(".")[0] for name in names} == held
    assert names[0].partition(".")[0] in ("head", "fc", "classifier")


def test_networks_that_are_averaged_are_shuffled_together():
    metrics = check([bottleneck(), bottleneck()], squares(6))
    assert [stage.name for stage in metrics.stages] == ["head", "features"]


def test_it_changes_from_the_part_on_after_which_it_stays_changed():
    def stages(**highs):
        return [
            Stage(name=name, similarity=Interval(value=high, low=-1, high=high))
            for name, high in highs.items()
        ]

    assert _verdict(stages(head=0.4, a=0.6, b=0.4, c=0.3)) == (True, "b", None)
    assert _verdict(stages(head=0.4, a=0.6)) == (False, None, None)
    assert _verdict([]) == (False, None, "the network has no weights")


def test_flat_maps_are_left_out_and_none_left_is_said():
    metrics = check([brightness(sign=0)], squares(4))
    assert (metrics.images, metrics.changes) == (0, None)
    assert metrics.reason == "no fractured image whose map is not flat"
