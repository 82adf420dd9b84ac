"""Inference: network outputs for a set of images."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pedfrac.models.classifier import ImageClassifier
from pedfrac.models.heads import Head
from pedfrac.models.inputs import to_input
from pedfrac.training.dataset import ImageSet
from pedfrac.training.learner import Network


@torch.inference_mode()
def predict_output(
    model: ImageClassifier,
    images: ImageSet,
    *,
    device: torch.device,
    batch_size: int = 64,
    compiled: Network | None = None,
) -> Tensor:
    """Return the network's output (n, m) of images, in their order, on the device.

    ``compiled`` is the model compiled for whole batches; the last one may go through the model.
    """
    model.eval()
    places = torch.arange(len(images)).split(batch_size)
    whole = model if compiled is None else compiled  # a compiled one has no truth value
    return torch.cat(
        [
            (whole if len(batch) == batch_size else model)(to_input(batch)).float()
            for batch in images.feed(device).batches(places)
        ]
    )


def predict_probabilities(
    model: ImageClassifier, images: ImageSet, *, device: torch.device, batch_size: int = 64
) -> NDArray[np.float64]:
    """Return the probabilities (n, classes) of images, in their order."""
    output = predict_output(model, images, device=device, batch_size=batch_size)
    return probabilities_of(model.head, output)


@torch.inference_mode()
def probabilities_of(head: Head, output: Tensor) -> NDArray[np.float64]:
    """Return the class probabilities (n, k) of network outputs (n, m)."""
    return head.probabilities(output).double().cpu().numpy()
