"""The one training engine: age classifier, generalist and specialists all go through it.

It knows images, labels and patients; not where artifacts lie, nor who watches the metrics.
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Generator, Tensor

from pedfrac.compute.malloc import keep_freed_memory
from pedfrac.compute.precision import autocast, float32
from pedfrac.config.runtime import RuntimeConfig
from pedfrac.config.training import TrainingConfig
from pedfrac.errors import PedfracError
from pedfrac.models.classifier import ImageClassifier
from pedfrac.models.heads import Head
from pedfrac.statistics.classification import classification_metrics
from pedfrac.storage.files import write_json
from pedfrac.training.checkpoint import CHECKPOINT, MODEL, laid_out_as, save_tensors, tensors_below
from pedfrac.training.dataset import ImageSet, TrainingData
from pedfrac.training.distributed import ALONE, Ranks, Tell, run_together
from pedfrac.training.imbalance import epoch_order
from pedfrac.training.inference import predict_output, probabilities_of
from pedfrac.training.learner import Learner, Network

logger = logging.getLogger(__name__)
MACHINE = RuntimeConfig()
Epoch = dict[str, Any]
OnEpoch = Callable[[Epoch], None]


def train(
    model: ImageClassifier,
    data: TrainingData,
    config: TrainingConfig,
    folder: Path,
    *,
    device: torch.device,
    runtime: RuntimeConfig = MACHINE,
    on_epoch: OnEpoch = lambda epoch: None,
    ranks: Ranks = ALONE,
) -> None:
    """Train a model and write its best epoch to a folder, resuming from a checkpoint if any.

    Writes ``model.safetensors`` (weights of the best epoch), ``history.json``, ``validation.csv``
    (probabilities and, from some heads, ages of the best epoch) and ``summary.json``. ``on_epoch``
    is called with every epoch, those before a resume first, and may raise to stop. With several
    ``ranks``, all get the same arguments and the first one writes. Raises PedfracError where the
    network's output is not finite, or where validation cannot give the metric that chooses the
    epoch.
    """
    if device.type == "cpu":
        keep_freed_memory()
    with float32(config.precision, device):
        run = _Run(model, data, config, folder, device, runtime, ranks)
        for epoch in run.history:
            on_epoch(epoch)
        while not run.finished:
            on_epoch(run.train_epoch())
        run.write_results()


def train_on(
    devices: Sequence[torch.device],
    build: Callable[[], ImageClassifier],
    data: TrainingData,
    config: TrainingConfig,
    folder: Path,
    *,
    runtime: RuntimeConfig = MACHINE,
    on_epoch: OnEpoch = lambda epoch: None,
) -> None:
    """Train, as ``train`` does, on one device here or on several, with a process for each.

    ``build`` makes the network; for several devices it must be something that pickle can name,
    since each process calls it. The batch is shared out, so results differ only as rounding and
    the draws of augmentation do. Raises PedfracError where a batch has fewer images than there are
    devices, or a process dies.
    """
    if len(devices) == 1:
        (device,) = devices
        train(build(), data, config, folder, device=device, runtime=runtime, on_epoch=on_epoch)
        return
    if config.batch_size < len(devices):
        raise PedfracError(
            f"{data.name}: batch_size {config.batch_size} cannot be shared among {len(devices)} "
            "devices; set it to that at least, or runtime.devices: one"
        )
    share = partial(_train_share, build, data, config, folder, runtime)
    run_together(share, devices, data.name, on_epoch)


def _train_share(
    build: Callable[[], ImageClassifier],
    data: TrainingData,
    config: TrainingConfig,
    folder: Path,
    runtime: RuntimeConfig,
    ranks: Ranks,
    device: torch.device,
    tell: Tell,
) -> None:
    """Run one rank of a training; the first reports the epochs."""
    seed_weights(config.seed)
    on_epoch = tell if ranks.first else lambda epoch: None
    shared: Any = {"device": device, "runtime": runtime, "ranks": ranks}
    train(build(), data, config, folder, on_epoch=on_epoch, **shared)


class _Run:
    """One training: its networks, optimiser and history, saved after each epoch.

    All randomness of an epoch is seeded by (seed, epoch), so a checkpoint needs no generator
    state and a run that is killed ends with the very weights of one that is not. One of several
    ranks has the same weights, average and history as the others at every step.
    """

    def __init__(
        self,
        model: ImageClassifier,
        data: TrainingData,
        config: TrainingConfig,
        folder: Path,
        device: torch.device,
        runtime: RuntimeConfig,
        ranks: Ranks,
    ):
        self.data, self.config, self.folder, self.device = data, config, folder, device
        self.ranks = ranks
        self.labels = torch.from_numpy(data.train.labels)
        self.years = _years(data.train) if model.head.tells_age else None
        taught = self.labels, self.years, data.findings
        self.learner = Learner(model, *taught, config, device, runtime, ranks)
        self.feed = data.train.feed(device)
        self.history: list[Epoch] = []
        if (folder / CHECKPOINT).exists():
            self._resume()
        # last, since the ranks wait here for each other: none may write before all have resumed
        self.learner.join()

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the metric has not improved for too long."""
        if not self.history:
            return False
        waited = self.history[-1]["epoch"] - self.best["epoch"]
        return self.history[-1]["epoch"] >= self.config.epochs or waited >= self.config.patience

    @property
    def best(self) -> Epoch:
        """The best epoch so far by the configured metric; ties go to the lowest loss."""
        return max(self.history, key=self._merit)

    def train_epoch(self) -> Epoch:
        """Run one epoch, validate it, save the state and return its metrics."""
        number = len(self.history) + 1
        rate = self._learning_rate(self.learner.updates)
        epoch: Epoch = {
            "epoch": number,
            "learning_rate": rate,
            "training": self._fit(number),
            "validation": self._validate(),
        }
        self.history.append(epoch)
        epoch["best"] = self.best is epoch
        if not self.ranks.first:
            return epoch
        if epoch["best"]:
            save_tensors(self.folder / MODEL, self.learner.evaluated.state_dict())
        self._save_checkpoint()
        return epoch

    def write_results(self) -> None:
        """Write what the artifact keeps and remove the checkpoint, last."""
        data, best = self.data, self.best
        self.ranks.wait()  # until the first one has written the weights
        self.learner.evaluated.load_state_dict(
            load_file(self.folder / MODEL, device=str(self.device))
        )
        output = self._output()
        if not self.ranks.first:
            return
        head, images = self.learner.evaluated.head, data.validation
        frame = pd.DataFrame({"filestem": images.filestems, "truth": images.labels})
        for k, probability in enumerate(probabilities_of(head, output).T):
            frame[f"p_{k}"] = probability
        if (years := head.years(output)) is not None:
            frame["age"], frame["age_seen"] = images.years, years.double().cpu().numpy()
        frame.to_csv(self.folder / "validation.csv", index=False)
        write_json(self.folder / "history.json", self.history)
        write_json(
            self.folder / "summary.json",
            {
                "name": data.name,
                "classes": list(data.classes),
                "best_epoch": best["epoch"],
                "epochs": len(self.history),
                "monitor": self.config.monitor,
                "metric": best["validation"][self.config.monitor],
                "train": data.train.summary(len(data.classes)),
                "validation": data.validation.summary(len(data.classes)),
            },
        )
        (self.folder / CHECKPOINT).unlink(missing_ok=True)

    @property
    def _batches(self) -> int:
        return math.ceil(len(self.data.train) / self.config.batch_size)

    @property
    def _updates_per_epoch(self) -> int:
        return math.ceil(self._batches / self.config.accumulation)

    def _merit(self, epoch: Epoch) -> tuple[float, float]:
        metrics, name = epoch["validation"], self.config.monitor
        if metrics[name] is None:
            raise PedfracError(
                f"{self.data.name}: validation has no {name} since classes are missing there; "
                "choose monitor: loss, or another split"
            )
        return (-metrics["loss"] if name == "loss" else metrics[name], -metrics["loss"])

    def _learning_rate(self, update: int) -> float:
        """Linear warm-up, then a cosine to zero at the last update (Loshchilov & Hutter 2017)."""
        warmup = self.config.warmup_epochs * self._updates_per_epoch
        total = self.config.epochs * self._updates_per_epoch
        if update < warmup:
            return self.config.learning_rate * (update + 1) / (warmup + 1)
        progress = (update - warmup) / max(1, total - warmup)
        return self.config.learning_rate * (1 + math.cos(math.pi * min(1, progress))) / 2

    def _fit(self, number: int) -> dict[str, float | None]:
        """Train one epoch; return the metrics on its images as they were augmented."""
        generator = _seeded(self.config.seed, number)
        order = epoch_order(self.labels, self.config, generator)
        if self.ranks.size > 1:
            # each rank draws for its own images; the place of a rank is never 0, which says nothing
            generator = _seeded(self.config.seed, number, self.ranks.rank + 1)
        batches = list(self._accumulated(len(order)))
        places = [self.ranks.share(batch) for batch, _ in batches]
        feed = self.feed.batches(
            [
                # a rank that gets no image of a short batch goes along with one that counts nothing
                order[own if len(own) else batch[:1]]
                for own, (batch, _) in zip(places, batches, strict=True)
            ]
        )
        outputs = []
        self.learner.model.train()
        for images, own, (batch, last) in zip(feed, places, batches, strict=True):
            output = self.learner.learn(images, order[own], order[batch], generator, now=last)
            outputs.append(output[: len(own)])
            if last:
                self.learner.update(self._learning_rate(self.learner.updates))
        whole = self._gathered(torch.cat(outputs), torch.cat(places), len(order))
        return _metrics(self.learner.model.head, whole, self.data.train, order)

    def _accumulated(self, count: int) -> Iterator[tuple[Tensor, bool]]:
        """Yield batches of places, each with whether the gradients so far are to be applied."""
        batches = torch.arange(count).split(self.config.batch_size)
        if len(batches) > 1 and len(batches[-1]) == 1:
            # batch normalisation cannot learn from one image: it joins the batch before
            batches = (*batches[:-2], torch.cat(batches[-2:]))
        for k, batch in enumerate(batches, start=1):
            yield batch, k % self.config.accumulation == 0 or k == len(batches)

    def _validate(self) -> dict[str, float | None]:
        images = self.data.validation
        with autocast(self.learner.precision, self.device):
            output = self._output(self.learner.compiled_average)
        if self.years is not None:
            # the training network's head, too, whose metrics on training images are made by it
            for network in (self.learner.model, self.learner.evaluated):
                network.head.fit(output, _years(images).to(self.device))
        return _metrics(self.learner.evaluated.head, output, images, torch.arange(len(images)))

    def _output(self, compiled: Network | None = None) -> Tensor:
        """Return the output (n, m) of the validation images, of which each rank does its share."""
        images = self.data.validation
        places = self.ranks.share(torch.arange(len(images)))
        # a rank without an image takes one for the shape of its output
        asked = images.part(places if len(places) else torch.zeros(1, dtype=torch.long))
        model, device = self.learner.evaluated, self.device
        output = predict_output(model, asked, device=device, compiled=compiled)
        return self._gathered(output[: len(places)], places, len(images))

    def _gathered(self, part: Tensor, places: Tensor, count: int) -> Tensor:
        """Return the output (count, m) of which each rank has a part, on this rank's device."""
        whole = self.ranks.whole(part, places, count).to(self.device)
        if not torch.isfinite(whole).all():
            raise PedfracError(
                f"{self.data.name}: the network's output is no number any more; "
                f"lower learning_rate {self.config.learning_rate} or set precision: fp32"
            )
        return whole

    def _save_checkpoint(self) -> None:
        learner = self.learner
        tensors = {f"model.{name}": value for name, value in learner.model.state_dict().items()}
        for name, value in learner.average.module.state_dict().items():
            tensors[f"average.{name}"] = value
        for index, state in learner.optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer.{index}.{name}"] = value
        progress = {"history": json.dumps(self.history), "updates": str(learner.updates)}
        save_tensors(self.folder / CHECKPOINT, tensors, progress)

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        with safe_open(path, framework="pt") as file:
            progress = file.metadata()
        tensors = load_file(path, device=str(self.device))
        self.learner.model.load_state_dict(tensors_below("model.", tensors))
        self.learner.average.module.load_state_dict(tensors_below("average.", tensors))
        parameters = [p for group in self.learner.optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors_below("optimizer.", tensors).items():
            index, field = name.split(".")
            state.setdefault(int(index), {})[field] = laid_out_as(parameters[int(index)], value)
        groups = self.learner.optimizer.state_dict()["param_groups"]
        self.learner.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.history = json.loads(progress["history"])
        self.learner.updates = int(progress["updates"])
        if self.ranks.first:
            logger.info("%s: goes on after epoch %d", self.data.name, len(self.history))


def seed_weights(seed: int) -> None:
    """Seed the global generator that new networks draw their weights from."""
    torch.manual_seed(seed)


def _years(images: ImageSet) -> Tensor:
    """Return the recorded ages (n,) of images, for a network that learns them."""
    if images.years is None:
        raise PedfracError(f"the {images.name} images have no ages, which the network is to learn")
    return torch.from_numpy(images.years).float()


@torch.inference_mode()
def _metrics(
    head: Head, output: Tensor, images: ImageSet, order: Tensor
) -> dict[str, float | None]:
    """Return the metrics of outputs (n, m) of the images at some positions (n,).

    ``age_error``, the mean absolute error of ages in years, where the head estimates them.
    """
    labels = images.labels[order.numpy()]
    metrics = classification_metrics(labels, probabilities_of(head, output))
    if (years := head.years(output)) is not None:
        metrics["age_error"] = float((years.cpu() - _years(images)[order]).abs().mean())
    return metrics


def _seeded(*numbers: int) -> Generator:
    """Return the generator of a seed, epoch and rank, and seed the one that dropout uses."""
    number = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    torch.manual_seed(number)
    return Generator().manual_seed(number)
