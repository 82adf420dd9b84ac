"""Each correction of imbalance changes one thing: the draw or the loss."""

import pytest
import torch
from torch.nn import functional

from pedfrac.config.training import TrainingConfig
from pedfrac.training.imbalance import class_weights, epoch_order, focal_loss, make_loss

LABELS = torch.tensor([0] * 900 + [1] * 100)


def order(imbalance: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return epoch_order(LABELS, TrainingConfig(imbalance=imbalance), generator)


def test_sampler_draws_classes_equally():
    assert LABELS[order("sampler")].float().mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("imbalance", ["focal", "weighted", "none"])
def test_every_other_choice_draws_each_image_once(imbalance):
    assert torch.equal(order(imbalance).sort().values, torch.arange(len(LABELS)))


def test_sampler_and_none_leave_the_loss_alone():
    logits, target = torch.randn(8, 2), torch.tensor([0, 1] * 4)
    for imbalance in ("sampler", "none"):
        loss = make_loss(LABELS, 2, TrainingConfig(imbalance=imbalance))
        torch.testing.assert_close(loss(logits, target), functional.cross_entropy(logits, target))


def test_weighted_loss_weighs_the_rare_class():
    assert class_weights(LABELS).tolist() == pytest.approx([1000 / 1800, 5])
    loss = make_loss(LABELS, 2, TrainingConfig(imbalance="weighted"))
    logits, target = torch.randn(8, 2), torch.tensor([0, 1] * 4)
    expected = functional.cross_entropy(logits, target, weight=torch.tensor([1000 / 1800, 5.0]))
    torch.testing.assert_close(loss(logits, target), expected)


def test_focal_loss_without_focus_is_cross_entropy():
    logits, target = torch.randn(8, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    torch.testing.assert_close(
        focal_loss(logits, target, 0), functional.cross_entropy(logits, target)
    )
    assert focal_loss(logits, target, 2) < focal_loss(logits, target, 0)


def test_absent_classes_weigh_nothing():
    labels = torch.tensor([0, 0, 2])
    assert class_weights(labels).tolist() == pytest.approx([0.75, 0, 1.5])
