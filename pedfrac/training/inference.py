"""Inference: what a network says of the images of a set."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pedfrac.models.classifier import FilmClassifier
from pedfrac.models.heads import Head
from pedfrac.models.inputs import to_input
from pedfrac.training.dataset import FilmSet
from pedfrac.training.learner import Network


@torch.inference_mode()
def predict_output(
    model: FilmClassifier,
    films: FilmSet,
    *,
    device: torch.device,
    batch_size: int = 64,
    compiled: Network | None = None,
) -> Tensor:
    """Return the network's output (n, m) of films, in their order, on the device.

    ``compiled`` is the model compiled for whole batches; the last one may go through the model.
    """
    model.eval()
    places = torch.arange(len(films)).split(batch_size)
    whole = model if compiled is None else compiled  # a compiled one has no truth value
    return torch.cat(
        [
            (whole if len(batch) == batch_size else model)(to_input(batch)).float()
            for batch in films.feed(device).batches(places)
        ]
    )


def predict_probabilities(
    model: FilmClassifier, films: FilmSet, *, device: torch.device, batch_size: int = 64
) -> NDArray[np.float64]:
    """Return the probabilities (n, classes) of films, in their order."""
    output = predict_output(model, films, device=device, batch_size=batch_size)
    return probabilities_of(model.head, output)


@torch.inference_mode()
def probabilities_of(head: Head, output: Tensor) -> NDArray[np.float64]:
    return head.probabilities(output).double().cpu().numpy()
