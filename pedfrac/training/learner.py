"""The learner: one optimisation step of a network and its weight average.

Epochs, validation and checkpoints are in trainer.py. On a GPU no step waits for the device.
"""

import logging
from collections.abc import Callable
from typing import Any, cast

import torch
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Generator, Tensor, nn

from pedfrac.compute.precision import autocast, can_compile, chosen
from pedfrac.config.runtime import RuntimeConfig
from pedfrac.config.training import TrainingConfig
from pedfrac.errors import PedfracError
from pedfrac.models.classifier import ImageClassifier
from pedfrac.models.inputs import to_device, to_input
from pedfrac.training.augmentation import augment, change_images
from pedfrac.training.distributed import Ranks
from pedfrac.training.findings import Findings
from pedfrac.training.imbalance import image_weights, make_loss

logger = logging.getLogger(__name__)
Network = Callable[[Tensor], Tensor]


class Learner:
    """A network in training: its optimiser, and the average of its weights.

    ``labels`` (n,) and, for a network that learns them, ``years`` (n,) and ``findings`` are of all
    training images, on the CPU.
    """

    def __init__(
        self,
        model: ImageClassifier,
        labels: Tensor,
        years: Tensor | None,
        findings: Findings | None,
        config: TrainingConfig,
        device: torch.device,
        runtime: RuntimeConfig,
        ranks: Ranks,
    ):
        self.config, self.device, self.ranks = config, device, ranks
        if runtime.gradient_checkpointing:
            model.keep_few_activations()
        self.precision = chosen(config.precision, device, model)
        model = model.to(device).to(memory_format=torch.channels_last)
        self.model = cast(ImageClassifier, ranks.with_batch_norm(model))
        self.average = ModelEmaV3(self.model, config.ema_decay, use_warmup=True)
        self.optimizer = torch.optim.AdamW(
            decayed_groups(self.model, config.weight_decay),
            lr=config.learning_rate,
            fused=True,
        )
        self.updates = 0
        self._weights = image_weights(labels, config)
        # what outputs are compared with lies on the device, so that no step waits for a copy
        self._labels, self._weights_there = labels.to(device), self._weights.to(device)
        self._years = None if years is None else years.to(device)
        self._findings = None if findings is None else findings.to(device)
        self._loss = make_loss(self._labels, model.head.classes, config)
        self._micro_batch = runtime.micro_batch
        self._compiles = _compiles(runtime, device)

    def join(self) -> None:
        """Meet the other ranks, and compile; to be called once, when the weights are in place."""
        self._joined = self.ranks.joined(_Looking(self.model))
        # of one shape each: other batches, such as the last of an epoch, go without
        self._compiled = self._fast(self._joined)
        self._change = self._fast(change_images)
        self.compiled_average = cast(Network, self._fast(self.evaluated))

    @property
    def evaluated(self) -> ImageClassifier:
        """The network that is judged and kept: the average, if there is one."""
        average = cast(ImageClassifier, self.average.module)
        return average if self.config.ema_decay > 0 else self.model

    def learn(
        self, images: Tensor, own: Tensor, batch: Tensor, generator: Generator, *, now: bool
    ) -> Tensor:
        """Add the gradients of one batch of training images, and return their output (k, m).

        ``images`` (k, size, size) uint8 on the device are those at the positions ``own`` (k,) of
        the training images, this rank's part of ``batch``; where that is empty, one image that
        counts nothing. Micro-batches add up to the mean loss of the batch, whose gradients the
        ranks share where it is to be applied ``now``.
        """
        learned = own if len(own) else batch[:1]
        size = self._micro_batch = self._micro_batch or self._fitting(images)
        change = self._change if len(images) == self.config.batch_size else change_images
        images, moves = augment(to_input(images), self.config.augment, generator, change)
        images = images.contiguous(memory_format=torch.channels_last)
        whole = self._weights[batch].sum()
        parts = list(zip(images.split(size), learned.split(size), moves.split(size), strict=True))
        outputs = []
        for number, (part, places, moved) in enumerate(parts, start=1):
            with self.ranks.gathering(self._joined, now=now and number == len(parts)):
                with autocast(self.precision, self.device):
                    output, maps = (self._compiled if len(part) == size else self._joined)(part)
                # the mean of the ranks' gradients is to be that of the batch's mean loss; a rank
                # without an image of it goes along with one that counts nothing
                share = self.ranks.size * float(self._weights[places].sum() / whole)
                part_of_update = share * bool(len(own)) / self.config.accumulation
                loss = self._losses(output.float(), places)
                if maps is not None and self._findings is not None:
                    there = to_device(places, self.device)
                    loss = loss + self._findings.loss(maps, moved, there)
                (loss * part_of_update).backward()
            outputs.append(output.detach().float())
        return torch.cat(outputs)

    def update(self, rate: float) -> None:
        """Apply the gradients so far at a learning rate, and let the average follow."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        if self.config.ema_decay > 0:
            self.average.update(self.model, step=self.updates)

    def _losses(self, output: Tensor, places: Tensor) -> Tensor:
        """Return the mean loss of training images at some positions, weighted as they count."""
        there = to_device(places, self.device)
        if self._years is None:
            return self._loss(output, self._labels[there])
        weights = self._weights_there[there]
        return (self.model.head.losses(output, self._years[there]) * weights).sum() / weights.sum()

    def _fast(self, function: Any) -> Any:
        return torch.compile(function, dynamic=False) if self._compiles else function

    def _fitting(self, images: Tensor) -> int:
        """Return how many images of a batch fit into memory at once: all, a half, a quarter, …

        Tried on a single GPU only; on a CPU memory runs out too late to notice.
        """
        size = self.config.batch_size
        if self.device.type != "cuda" or self.ranks.size > 1:
            return size
        return largest_that_fits(size, lambda count: self._try(images[:1], count))

    def _try(self, image: Tensor, count: int) -> None:
        """Run copies of an image forward and backward, and restore all state."""
        buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        try:
            arithmetic = autocast(self.precision, self.device)
            with torch.random.fork_rng([self.device]), arithmetic:
                output, maps = self.model.look(to_input(image.expand(count, -1, -1)))
            total = output.float().sum()
            (total if maps is None else total + maps.float().sum()).backward()
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            for name, value in self.model.named_buffers():
                value.copy_(buffers[name])


def largest_that_fits(size: int, attempt: Callable[[int], None]) -> int:
    """Return the size, or the first of its halves, at which an attempt has memory enough.

    Raises PedfracError where not even 1 has.
    """
    while True:
        try:
            attempt(size)
            return size
        except torch.OutOfMemoryError:
            if size == 1:
                raise PedfracError(
                    "not even one image fits into the GPU's memory; choose a smaller network or "
                    "size, or runtime.gradient_checkpointing"
                ) from None
        size = -(-size // 2)
        logger.info("the batch does not fit into the GPU's memory: trying %d images at once", size)


def _compiles(runtime: RuntimeConfig, device: torch.device) -> bool:
    """Return whether networks are to be compiled; PedfracError where they cannot but must be."""
    if runtime.compile == "off" or (runtime.compile == "auto" and device.type != "cuda"):
        return False
    if can_compile():
        return True
    if runtime.compile == "on":
        raise PedfracError(
            "runtime.compile on: needs a C++ compiler, and there is no g++ here; install it, "
            "or choose off"
        )
    logger.warning("networks are not compiled, and so slower: there is no g++ here")
    return False


def decayed_groups(model: ImageClassifier, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups: matrices and kernels decay, biases, norms and exceptions do not.

    The exceptions are what the backbone names itself, such as Swin's position biases.
    """
    named: Any = getattr(model.network, "no_weight_decay", set)
    exceptions = [f"network.{name}" for name in named()]
    return param_groups_weight_decay(model, weight_decay, exceptions)


class _Looking(nn.Module):
    """A network as it learns: its output with its finding maps."""

    def __init__(self, model: ImageClassifier):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.model.look(images)
