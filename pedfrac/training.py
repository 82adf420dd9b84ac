"""The one training engine: age classifier, generalist and specialists all go through it.

It knows films, labels and patients; not where artifacts lie, nor who watches the figures.
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from pedfrac.arithmetic import autocast, float32
from pedfrac.config import RuntimeConfig, TrainingConfig
from pedfrac.distributed import ALONE, Ranks, Tell, run_together
from pedfrac.errors import PedfracError
from pedfrac.feed import Feed
from pedfrac.heads import Head
from pedfrac.imbalance import epoch_order
from pedfrac.learner import Learner, Network, to_input
from pedfrac.mapped import Films, MappedArray
from pedfrac.memory import keep_freed_memory
from pedfrac.metrics import classification_figures
from pedfrac.models import FilmClassifier
from pedfrac.storage import write_json

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
MACHINE = RuntimeConfig()

Epoch = dict[str, Any]
OnEpoch = Callable[[Epoch], None]


@dataclass(frozen=True, eq=False)
class FilmSet:
    """Some films of a pack with their labels: images (n, size, size) uint8, read when needed.

    ``years`` (n,): recorded ages, for a network that learns them.
    """

    name: str
    images: Films
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    filestems: Sequence[str]
    patients: NDArray[np.int64]
    years: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        # to another process goes the place of a mapped array, not its films
        return self.__dict__ | {"images": MappedArray.of(self.images)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        images = state["images"]
        opened = images.open() if isinstance(images, MappedArray) else images
        self.__dict__.update(state | {"images": opened})

    def part(self, positions: Tensor) -> "FilmSet":
        """Return the films at some positions, as a set of their own."""
        chosen = positions.numpy()
        return replace(
            self,
            rows=self.rows[chosen],
            labels=self.labels[chosen],
            filestems=[self.filestems[k] for k in chosen],
            patients=self.patients[chosen],
            years=None if self.years is None else self.years[chosen],
        )

    def feed(self, device: torch.device) -> Feed:
        """Return the feed of these films to a device."""
        return Feed(self.images, self.rows, device)

    def summary(self, classes: int) -> dict[str, Any]:
        """Return how many films, patients and films of each class there are."""
        return {
            "images": len(self),
            "patients": len(np.unique(self.patients)),
            "classes": np.bincount(self.labels, minlength=classes).tolist(),
        }


@dataclass(frozen=True)
class TrainingData:
    """What one model learns from; it cannot be made with a patient on both sides."""

    name: str
    classes: Sequence[str]
    train: FilmSet
    validation: FilmSet

    def __post_init__(self) -> None:
        shared = np.intersect1d(self.train.patients, self.validation.patients)
        if len(shared):
            raise PedfracError(
                f"{self.name}: {len(shared)} patients are in training and validation, "
                f"such as {shared[:3].tolist()}; a patient must be in one only"
            )
        for films in (self.train, self.validation):
            if len(films) == 0:
                raise PedfracError(f"{self.name}: no {films.name} film; at least one is needed")
            missing = [
                label for k, label in enumerate(self.classes) if not (films.labels == k).any()
            ]
            # without both kinds neither the loss nor the figure that chooses the epoch means much
            if len(self.classes) - len(missing) < 2:
                raise PedfracError(
                    f"{self.name}: the {len(films)} {films.name} films hold no film of "
                    f"{', '.join(missing)}; at least two classes are needed"
                )
            if missing:
                logger.warning("%s: no %s film of %s", self.name, films.name, ", ".join(missing))


def to_films(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return uint8 images (n, size, size) as network input: float (n, 1, size, size) in 0…1."""
    return to_input(torch.from_numpy(images).to(device, non_blocking=True))


def train(
    model: FilmClassifier,
    data: TrainingData,
    config: TrainingConfig,
    folder: Path,
    *,
    device: torch.device,
    runtime: RuntimeConfig = MACHINE,
    on_epoch: OnEpoch = lambda epoch: None,
    ranks: Ranks = ALONE,
) -> None:
    """Train a model and leave its best epoch in a folder, going on where an earlier try stopped.

    Writes ``model.safetensors`` (weights of the best epoch), ``history.json``, ``validation.csv``
    (probabilities and, from some heads, ages of the best epoch) and ``summary.json``. ``on_epoch``
    is told of every epoch, those of an earlier try first, and may raise to stop. Where this process
    is one of several ``ranks``, all must be given the same, and the first one writes. Raises
    PedfracError where the network's output is no number, or where validation cannot give the figure
    that chooses the epoch.
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
    build: Callable[[], FilmClassifier],
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
    the draws of augmentation do. Raises PedfracError where a batch has fewer films than there are
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
    build: Callable[[], FilmClassifier],
    data: TrainingData,
    config: TrainingConfig,
    folder: Path,
    runtime: RuntimeConfig,
    ranks: Ranks,
    device: torch.device,
    tell: Tell,
) -> None:
    """Be one process of a training; the first one tells of the epochs."""
    seed_weights(config.seed)
    on_epoch = tell if ranks.first else lambda epoch: None
    shared: Any = {"device": device, "runtime": runtime, "ranks": ranks}
    train(build(), data, config, folder, on_epoch=on_epoch, **shared)


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
    return _probabilities(model.head, output)


@torch.inference_mode()
def _probabilities(head: Head, output: Tensor) -> NDArray[np.float64]:
    return head.probabilities(output).double().cpu().numpy()


class _Run:
    """One training: its networks, optimiser and history, saved after each epoch.

    All randomness of an epoch is seeded by (seed, epoch), so a checkpoint needs no generator
    state and a run that is killed ends with the very weights of one that is not. One of several
    ranks has the same weights, average and history as the others at every step.
    """

    def __init__(
        self,
        model: FilmClassifier,
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
        self.learner = Learner(model, self.labels, self.years, config, device, runtime, ranks)
        self.feed = data.train.feed(device)
        self.history: list[Epoch] = []
        if (folder / CHECKPOINT).exists():
            self._resume()
        # last, since the ranks wait here for each other: none may write before all have resumed
        self.learner.join()

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the figure has not improved for too long."""
        if not self.history:
            return False
        waited = self.history[-1]["epoch"] - self.best["epoch"]
        return self.history[-1]["epoch"] >= self.config.epochs or waited >= self.config.patience

    @property
    def best(self) -> Epoch:
        """The best epoch so far by the configured figure; of equals the one of least loss."""
        return max(self.history, key=self._merit)

    def train_epoch(self) -> Epoch:
        """Run one epoch, validate it, save the state and return its figures."""
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
            _save(self.folder / MODEL, self.learner.evaluated.state_dict())
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
        head, films = self.learner.evaluated.head, data.validation
        frame = pd.DataFrame({"filestem": films.filestems, "truth": films.labels})
        for k, probability in enumerate(_probabilities(head, output).T):
            frame[f"p_{k}"] = probability
        if (years := head.years(output)) is not None:
            frame["age"], frame["age_seen"] = films.years, years.double().cpu().numpy()
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
                "figure": best["validation"][self.config.monitor],
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
        figures, name = epoch["validation"], self.config.monitor
        if figures[name] is None:
            raise PedfracError(
                f"{self.data.name}: validation has no {name} since classes are missing there; "
                "choose monitor: loss, or another split"
            )
        return (-figures["loss"] if name == "loss" else figures[name], -figures["loss"])

    def _learning_rate(self, update: int) -> float:
        """Linear warm-up, then a cosine to zero at the last update (Loshchilov & Hutter 2017)."""
        warmup = self.config.warmup_epochs * self._updates_per_epoch
        total = self.config.epochs * self._updates_per_epoch
        if update < warmup:
            return self.config.learning_rate * (update + 1) / (warmup + 1)
        progress = (update - warmup) / max(1, total - warmup)
        return self.config.learning_rate * (1 + math.cos(math.pi * min(1, progress))) / 2

    def _fit(self, number: int) -> dict[str, float | None]:
        """Train one epoch; return the figures on its films as they were augmented."""
        generator = _seeded(self.config.seed, number)
        order = epoch_order(self.labels, self.config, generator)
        if self.ranks.size > 1:
            # each rank draws for its own films; the place of a rank is never 0, which says nothing
            generator = _seeded(self.config.seed, number, self.ranks.rank + 1)
        batches = list(self._accumulated(len(order)))
        places = [self.ranks.share(batch) for batch, _ in batches]
        feed = self.feed.batches(
            [
                # a rank that gets no film of a short batch goes along with one that counts nothing
                order[own if len(own) else batch[:1]]
                for own, (batch, _) in zip(places, batches, strict=True)
            ]
        )
        outputs = []
        self.learner.model.train()
        for films, own, (batch, last) in zip(feed, places, batches, strict=True):
            output = self.learner.learn(films, order[own], order[batch], generator, now=last)
            outputs.append(output[: len(own)])
            if last:
                self.learner.update(self._learning_rate(self.learner.updates))
        whole = self._gathered(torch.cat(outputs), torch.cat(places), len(order))
        return _figures(self.learner.model.head, whole, self.data.train, order)

    def _accumulated(self, count: int) -> Iterator[tuple[Tensor, bool]]:
        """Yield batches of places, each with whether the gradients so far are to be applied."""
        batches = torch.arange(count).split(self.config.batch_size)
        if len(batches) > 1 and len(batches[-1]) == 1:
            # batch normalisation cannot learn from one film: it joins the batch before
            batches = (*batches[:-2], torch.cat(batches[-2:]))
        for k, batch in enumerate(batches, start=1):
            yield batch, k % self.config.accumulation == 0 or k == len(batches)

    def _validate(self) -> dict[str, float | None]:
        films = self.data.validation
        with autocast(self.learner.precision, self.device):
            output = self._output(self.learner.compiled_average)
        if self.years is not None:
            # the training network's head, too, whose figures on training films are made by it
            for network in (self.learner.model, self.learner.evaluated):
                network.head.fit(output, _years(films).to(self.device))
        return _figures(self.learner.evaluated.head, output, films, torch.arange(len(films)))

    def _output(self, compiled: Network | None = None) -> Tensor:
        """Return the output (n, m) of the validation films, of which each rank does its share."""
        films = self.data.validation
        places = self.ranks.share(torch.arange(len(films)))
        # a rank without a film takes one for the shape of its output
        asked = films.part(places if len(places) else torch.zeros(1, dtype=torch.long))
        model, device = self.learner.evaluated, self.device
        output = predict_output(model, asked, device=device, compiled=compiled)
        return self._gathered(output[: len(places)], places, len(films))

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
        _save(self.folder / CHECKPOINT, tensors, progress)

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        with safe_open(path, framework="pt") as file:
            progress = file.metadata()
        tensors = load_file(path, device=str(self.device))
        self.learner.model.load_state_dict(_below("model.", tensors))
        self.learner.average.module.load_state_dict(_below("average.", tensors))
        parameters = [p for group in self.learner.optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimizer.", tensors).items():
            index, field = name.split(".")
            state.setdefault(int(index), {})[field] = _laid_out_as(parameters[int(index)], value)
        groups = self.learner.optimizer.state_dict()["param_groups"]
        self.learner.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.history = json.loads(progress["history"])
        self.learner.updates = int(progress["updates"])
        if self.ranks.first:
            logger.info("%s: goes on after epoch %d", self.data.name, len(self.history))


def load_weights(model: nn.Module, path: Path) -> None:
    """Put the weights of a finished training into a model of the same shape."""
    model.load_state_dict(load_file(path))


def seed_weights(seed: int) -> None:
    """Seed the global generator that new networks draw their weights from."""
    torch.manual_seed(seed)


def _years(films: FilmSet) -> Tensor:
    """Return the recorded ages (n,) of films, for a network that learns them."""
    if films.years is None:
        raise PedfracError(f"the {films.name} films have no ages, which the network is to learn")
    return torch.from_numpy(films.years).float()


@torch.inference_mode()
def _figures(head: Head, output: Tensor, films: FilmSet, order: Tensor) -> dict[str, float | None]:
    """Return the figures of outputs (n, m) of the films at some positions (n,).

    ``age_error``, the mean absolute error of ages in years, where the head estimates them.
    """
    labels = films.labels[order.numpy()]
    figures = classification_figures(labels, _probabilities(head, output))
    if (years := head.years(output)) is not None:
        figures["age_error"] = float((years.cpu() - _years(films)[order]).abs().mean())
    return figures


def _seeded(*numbers: int) -> Generator:
    """Return the generator of a seed, epoch and rank, and seed the one that dropout draws from."""
    number = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    torch.manual_seed(number)
    return Generator().manual_seed(number)


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors in one step: a file is either the old one or the new one, whole."""
    temporary = path.with_suffix(".tmp")
    # contiguous() undoes channels_last, which the format cannot keep
    whole = {name: value.detach().contiguous() for name, value in tensors.items()}
    save_file(whole, temporary, metadata=metadata)
    temporary.replace(path)


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """Return a parameter's optimiser state in the parameter's memory format.

    The fused optimiser walks through both as they lie in memory, whatever their strides say.
    """
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
