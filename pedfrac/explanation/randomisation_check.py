"""Maps under random weights: does a heat map change when what the network learned is destroyed?

The sanity check of Adebayo et al. (NeurIPS 2018). Not here: whether a map is right (localisation).
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from pedfrac.explanation.metrics import RandomWeights, Stage
from pedfrac.explanation.saliency import FRACTURED, mean_maps
from pedfrac.models.classifier import ImageClassifier
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

DRAWS = 3  # random networks that are averaged: with one, few classes leave the sign to luck
ALIKE = 0.5  # rank correlation below which, with the whole interval, a map counts as changed
SIDE = 32  # maps are compared at this side: finer than any network's last features
NOTE = (
    "Weights are shuffled within each tensor, part by part from the head down, and stay shuffled. "
    "Similarity: Spearman's rank correlation with the trained network's map within the image, mean "
    f"over images and {DRAWS} shuffles; 0 for a map that became flat. The map changes if, once all "
    f"weights are shuffled, similarity is below {ALIKE} with its whole interval; it changes from "
    "the first part on after which that stays so. Maps that are flat to begin with are left out."
)


def random_weights_metrics(
    models: Sequence[ImageClassifier],
    images: NDArray[np.uint8],
    windows: Sequence[tuple[int, int, int, int]],
    patients: NDArray[Any],
    method: str,
    bootstrap: Callable[[NDArray[Any]], PatientBootstrap],
    *,
    device: torch.device,
) -> RandomWeights:
    """Return images, draws, stages (name, similarity), a note, and whether the map changes.

    ``changes`` is null where that is unknown, for the ``reason``; ``changes_from`` names the part
    from which on it does, the nearer to the head the better.

    ``models`` are explained by their mean map on fractured ``images`` (n,S,S) of ``patients`` (n,),
    which lie in ``windows`` xyxy. ``bootstrap`` makes a PatientBootstrap of patients.
    """
    original = _ranks(mean_maps(models, images, FRACTURED, method, device=device), windows)
    usable = np.ptp(original, axis=1) > 0
    images, original = images[usable], original[usable]
    windows = [window for window, use in zip(windows, usable, strict=True) if use]
    resampled = bootstrap(patients[usable])
    names, similarity = _cascade(models, images, windows, original, method, device)
    reason = "no fractured image whose map is not flat"
    stages = [
        Stage(
            name=name,
            similarity=resampled.interval(resampled.ratio(values, scale="plain", reason=reason)),
        )
        for name, values in zip(names, similarity, strict=True)
    ]
    changes, changes_from, reason_unknown = _verdict(stages)
    return RandomWeights(
        images=len(images),
        draws=DRAWS,
        stages=stages,
        changes=changes,
        changes_from=changes_from,
        reason=reason_unknown,
        note=NOTE,
    )


def _verdict(stages: Sequence[Stage]) -> tuple[bool | None, str | None, str | None]:
    """Return whether the map changes in the end, from which part on, and why that is unknown."""
    if not stages:
        return False, None, "the network has no weights"
    last = stages[-1].similarity
    if not last.bounds:
        return None, None, last.reason
    changed = [stage.similarity.is_below(ALIKE) for stage in stages]
    first = next((at for at in range(len(stages)) if all(changed[at:])), None)
    return changed[-1], None if first is None else stages[first].name, None


def _cascade(
    models: Sequence[ImageClassifier],
    images: NDArray[np.uint8],
    windows: Sequence[tuple[int, int, int, int]],
    original: NDArray[np.float64],
    method: str,
    device: torch.device,
) -> tuple[list[str], NDArray[np.float64]]:
    """Return the parts in the order in which they are shuffled, and (parts, n) similarities."""
    names: list[str] = []
    found = []
    for number in range(DRAWS):
        random = torch.Generator().manual_seed(number)
        shuffled = [copy.deepcopy(model).cpu() for model in models]
        names, similarity = [], []
        for parts in zip_longest(*(_parts(model.network) for model in shuffled)):
            present = [part for part in parts if part is not None]
            for _, tensors in present:
                for tensor in tensors:
                    _shuffle(tensor, random)
            names.append(present[0][0])
            maps = mean_maps(shuffled, images, FRACTURED, method, device=device)
            similarity.append(_correlation(original, _ranks(maps, windows)))
        found.append(similarity)
    return names, np.mean(np.reshape(found, (DRAWS, len(names), len(images))), axis=0)


def _parts(network: Any) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield the parts of a timm network from the head down: name and weights.

    A child that holds several of timm's feature stages is taken apart into its own children.
    """
    stages = [info["module"] for info in getattr(network, "feature_info", None) or []]
    parts: list[tuple[str, nn.Module]] = []
    for name, child in network.named_children():
        if any(stage.startswith(f"{name}.") for stage in stages):
            parts += [(f"{name}.{part}", module) for part, module in child.named_children()]
        else:
            parts.append((name, child))
    own: list[Tensor] = [*network.parameters(recurse=False)]
    for name, module in reversed(parts):
        tensors: list[Tensor] = [*module.parameters()]
        if tensors:
            yield name, tensors
    if own:
        yield "own", own


@torch.no_grad()
def _shuffle(tensor: Tensor, random: torch.Generator) -> None:
    """Shuffle in place: mean and spread stay, so that the network neither dies nor overflows."""
    order = torch.randperm(tensor.numel(), generator=random)
    tensor.copy_(tensor.flatten()[order].view_as(tensor))


def _ranks(
    maps: NDArray[np.float32], windows: Sequence[tuple[int, int, int, int]]
) -> NDArray[np.float64]:
    """Return the ranks (n, SIDE * SIDE) of the heat within each image."""
    small = [
        cv2.resize(heat[top:bottom, left:right], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for heat, (left, top, right, bottom) in zip(maps, windows, strict=True)
    ]
    return rankdata(np.reshape(small, (len(maps), SIDE * SIDE)), axis=1)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Spearman's correlation (n,) of ranks (n, m); 0 where one is flat."""
    a, b = (one - one.mean(axis=1, keepdims=True) for one in (a, b))
    spread = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    return np.divide((a * b).sum(axis=1), spread, out=np.zeros(len(a)), where=spread > 0)
