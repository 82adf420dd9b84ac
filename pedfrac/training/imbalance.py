"""The one correction of class imbalance: which images an epoch draws, and its loss.

Sampler and loss are never corrected together.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

from pedfrac.config.training import TrainingConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def epoch_order(labels: Tensor, config: TrainingConfig, generator: Generator) -> Tensor:
    """Return the positions (n,) of the images of one epoch, drawn for the labels (n,).

    With the sampler, images are drawn with replacement so that classes come equally often; else
    each image comes once in random order.
    """
    if config.imbalance != "sampler":
        return torch.randperm(len(labels), generator=generator)
    weights = class_weights(labels)[labels]
    return torch.multinomial(weights, len(labels), replacement=True, generator=generator)


def class_weights(labels: Tensor) -> Tensor:
    """Return weights (classes,) inverse to the frequency of each class, 1 on average over images.

    The rule is n / (classes present · n of the class); a class without images weighs nothing.
    """
    counts = torch.bincount(labels).double()
    present = counts > 0
    weights = len(labels) / (present.sum() * counts.clamp(min=1))
    return torch.where(present, weights, 0.0).float()


def make_loss(labels: Tensor, classes: int, config: TrainingConfig) -> Loss:
    """Return the loss of logits (batch, classes) and labels (batch,), a mean over the batch.

    ``labels`` (n,) are those of all images; the loss is for the device that they are on.
    """
    if config.imbalance == "focal":
        return lambda logits, target: focal_loss(logits, target, config.focal_gamma)
    weight = None
    if config.imbalance == "weighted":
        weight = torch.zeros(classes, device=labels.device)
        found = class_weights(labels)
        weight[: len(found)] = found
    return lambda logits, target: functional.cross_entropy(
        logits,
        target,
        weight=None if weight is None else weight.to(logits.dtype),
        label_smoothing=config.label_smoothing,
    )


def image_weights(labels: Tensor, config: TrainingConfig) -> Tensor:
    """Return how much each image (n,) counts in the mean over a batch that the loss is."""
    if config.imbalance == "weighted":
        return class_weights(labels)[labels]
    return torch.ones(len(labels))


def focal_loss(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Return the mean focal loss -(1-p)^gamma log p (Lin et al. 2017, without its alpha)."""
    log_p = functional.log_softmax(logits, dim=1).gather(1, target[:, None])[:, 0]
    return (-((1 - log_p.exp()) ** gamma) * log_p).mean()
