"""The trainings: which images a model learns from, and under which key it will lie."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pedfrac.bundle.bundle import FRACTURE_CLASSES
from pedfrac.compute.devices import resolve_devices
from pedfrac.config.retrain import RetrainConfig
from pedfrac.config.training import MapsConfig, MapShape, ModelConfig, TrainingConfig
from pedfrac.data import split as data_split
from pedfrac.errors import PedfracError
from pedfrac.models.classifier import ImageClassifier, build_model
from pedfrac.models.heads import Classes, Head, make_head
from pedfrac.packs.pack import Pack
from pedfrac.pipeline.folds import fold_in_words
from pedfrac.pipeline.keys import Prepared, pack_and_split, store_of
from pedfrac.statistics.classification import confusion
from pedfrac.storage.files import file_hash
from pedfrac.storage.inputs import Inputs
from pedfrac.storage.manifest import Artifact
from pedfrac.training.checkpoint import MODEL, load_weights, save_maps
from pedfrac.training.dataset import ImageSet, TrainingData
from pedfrac.training.findings import find_boxes, find_classes
from pedfrac.training.trainer import Epoch, OnEpoch, seed_weights, train_on

INDEX_COLUMNS = ["filestem", "patient_id", "age", "fracture_visible"]  # what trainings look at


def age_training(config: RetrainConfig, prepared: Prepared) -> "Training":
    """Return the training of the age classifier."""
    ages = config.cohort.ages
    name = "age" + fold_in_words(config, prepared)

    def images(pack: Pack) -> Images:
        years = pack.index["age"].to_numpy(dtype=np.float64)
        labels = ages.assign(years)
        return Images(name, ages.names, labels, labels >= 0, years)

    return Training(
        config,
        name,
        kind="age-model",
        images=images,
        parents=pack_and_split(config, prepared.age_pack, prepared.split),
        model=config.age.model,
        training=config.age.training,
        head=partial(make_head, config.age.head, ages),
        settings={"age_bounds": list(ages.bounds), "role": "age", "head": config.age.head},
    )


def fracture_training(
    config: RetrainConfig,
    prepared: Prepared,
    group: int | None = None,
    generalist: str | None = None,
) -> "Training":
    """Return the training of an age group's fracture network, or of all ages where it is None.

    A specialist that starts from the generalist needs its key.
    """
    ages = config.cohort.ages
    name = "generalist" if group is None else ages.name(group)
    name += fold_in_words(config, prepared)
    parents = pack_and_split(config, prepared.fracture_pack, prepared.split)
    if group is not None and config.fracture.specialist.start == "generalist":
        if generalist is None:
            raise PedfracError(f"{name}: starts from the generalist, which is not trained yet")
        parents["start"] = store_of(config).peek(generalist)

    def images(pack: Pack) -> Images:
        groups = ages.assign(pack.index["age"])
        chosen = groups >= 0 if group is None else groups == group
        labels = pack.index["fracture_visible"].to_numpy().astype("int64")
        return Images(name, FRACTURE_CLASSES, labels, chosen)

    bounds = ages.bounds if group is None else ages.bounds[group : group + 2]
    # whether the last bound is inside depends on the group being the last
    last = group is None or group == len(ages) - 1
    return Training(
        config,
        name,
        kind="fracture-model",
        images=images,
        parents=parents,
        model=config.fracture.model,
        training=config.fracture.training if group is None else config.fracture.specialist_training,
        head=partial(Classes, len(FRACTURE_CLASSES)),
        settings={
            "age_bounds": list(bounds),
            "last_group": last,
            "role": "fracture",
            "maps": config.fracture.maps.model_dump(mode="json"),
        },
        maps=config.fracture.maps,
    )


def validation_confusion(config: RetrainConfig, model: str) -> list[list[int]]:
    """Return the confusion matrix (rows: truth) of a trained model on its validation images."""
    validation = pd.read_csv(store_of(config).get(model).file("validation.csv"))
    probabilities = validation.filter(regex=r"^p_\d+$").to_numpy()
    return confusion(
        validation["truth"].to_numpy(), probabilities.argmax(axis=1), probabilities.shape[1]
    )


class Images(NamedTuple):
    """Which images of a pack a model learns from, and what they are: arrays over the whole pack."""

    name: str
    classes: Sequence[str]
    labels: NDArray[np.int64]
    chosen: NDArray[np.bool_]
    years: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Training:
    """A training that has not started: its inputs, and the key of its model.

    ``images`` chooses from the pack, which is not opened before the training runs; ``head`` makes
    the network's head; ``maps`` are the finding maps it has beside that where there are boxes.
    """

    config: RetrainConfig
    name: str
    kind: str
    images: Callable[[Pack], Images]
    parents: dict[str, Artifact]
    model: ModelConfig
    training: TrainingConfig
    head: Callable[[], Head]
    settings: dict[str, Any]
    maps: MapsConfig | None = None

    @property
    def inputs(self) -> Inputs:
        """What the model is made from."""
        return Inputs.of(self.kind, **self._given)

    @property
    def key(self) -> str:
        """The key of the model, known before it is trained."""
        return self.inputs.key

    @property
    def done(self) -> bool:
        """Whether the model is in the store."""
        return store_of(self.config).exists(self.key)

    def run(
        self,
        on_epoch: OnEpoch = lambda epoch: None,
        before_publishing: Callable[[], None] = lambda: None,
    ) -> str:
        """Train, or resume an earlier attempt that was killed; return the key.

        ``before_publishing`` is called once all is computed; if it raises, nothing is published.
        """
        store = store_of(self.config)

        def make(folder: Path) -> None:
            parents, runtime = self.parents, self.config.runtime
            folders = parents["pack"].path, parents["split"].path
            data = training_data(self.images, *folders, self.maps)
            start = parents["start"].file(MODEL) if "start" in parents else None
            shape = _map_shape(data)
            seed = self.training.seed
            build = partial(_network_to_train, self.model, self.head, seed, start, shape)
            devices = resolve_devices(runtime.device, runtime.devices)

            def keep(epoch: Epoch) -> None:
                # first of all, since being told of an epoch may end the training
                store.checkpoint(folder)
                on_epoch(epoch)

            train_on(devices, build, data, self.training, folder, runtime=runtime, on_epoch=keep)
            save_maps(folder, shape)
            before_publishing()

        return store.produce(self.kind, make, resumable=True, **self._given).key

    @cached_property
    def _given(self) -> dict[str, Any]:
        # kept, since a file of weights may be large and the key is asked for at each try
        weights = Path(self.model.weights)
        return {
            "config": self.settings
            | {
                "model": self.model.model_dump(mode="json"),
                "training": self.training.model_dump(mode="json"),
            },
            "sources": {"weights": file_hash(weights)} if weights.is_file() else {},
            "parents": self.parents,
        }


def training_data(
    images: Callable[[Pack], Images], packed: Path, parted: Path, maps: MapsConfig | None = None
) -> TrainingData:
    """Return the chosen images, labelled, of the training and the validation part.

    ``packed`` and ``parted`` are the folders of the pack and the split. With ``maps`` the training
    images bring their boxes, of the classes of which all training images, chosen or not, hold
    enough: so generalist and specialists have the same maps.
    """
    pack = Pack.open(packed, INDEX_COLUMNS, boxes=maps is not None and bool(maps.classes))
    split = data_split.load_split(parted)
    name, classes, labels, chosen, years = images(pack)

    def part(rows: NDArray[np.int64], title: str) -> ImageSet:
        rows = rows[chosen[rows]]
        return ImageSet(
            name=title,
            images=pack.images,
            rows=rows,
            labels=labels[rows],
            filestems=pack.index["filestem"].iloc[rows].tolist(),
            patients=pack.index["patient_id"].to_numpy()[rows],
            years=None if years is None else years[rows],
        )

    train_rows, validation_rows = (pack.rows(split.images(p)) for p in ("train", "validation"))
    train, validation = part(train_rows, "training"), part(validation_rows, "validation")
    mapped = find_classes(pack, train_rows, maps) if maps else ()
    findings = find_boxes(pack, train.rows, train.labels, mapped, maps) if maps and mapped else None
    return TrainingData(name, classes, train, validation, findings)


def _map_shape(data: TrainingData) -> MapShape | None:
    found = data.findings
    return found.config.shape(found.classes) if found else None


def _network_to_train(
    model: ModelConfig,
    head: Callable[[], Head],
    seed: int,
    start: Path | None,
    maps: MapShape | None,
) -> ImageClassifier:
    seed_weights(seed)
    network = build_model(model, head(), load_weights=start is None, maps=maps)
    if start is not None:
        load_weights(network, start)
    return network
