"""The result of a run: every network with thresholds, bounds, preparation and provenance.

One folder of safetensors and JSON that predicts without training configuration, Prefect or MLflow.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, ValidationError
from safetensors.torch import load_file

from pedfrac.ages import AgeGroups
from pedfrac.config import ModelConfig, Preparation, Section, explain_invalid
from pedfrac.errors import PedfracError
from pedfrac.models import FilmClassifier, build_model
from pedfrac.packing import Pack
from pedfrac.storage import write_json
from pedfrac.training import to_films

INFO = "bundle.json"
FRACTURE_CLASSES = ("normal", "fractured")


class Network(Section):
    """A network of the bundle: how to build it and how its films are prepared."""

    model: ModelConfig
    preparation: Preparation


class Thresholds(Section):
    """Probabilities at which a film is called fractured."""

    generalist: float
    specialists: tuple[float, ...]


class BundleInfo(Section):
    """What a bundle is, apart from its weights."""

    schema_version: Literal[1] = 1
    age_bounds: tuple[float, ...]
    fracture: Network
    age: Network
    thresholds: Thresholds
    provenance: dict[str, Any] = Field(default_factory=dict)

    @property
    def ages(self) -> AgeGroups:
        """The age groups that route films to specialists."""
        return AgeGroups(self.age_bounds)


def weight_names(ages: AgeGroups) -> list[str]:
    """Return the names of a bundle's networks: age, generalist and one for each age group."""
    return ["age", "generalist", *(f"specialist-{name}" for name in ages.names)]


def write_bundle(folder: Path, info: BundleInfo, weights: Mapping[str, Path]) -> None:
    """Write a bundle from its description and a file of weights for each network."""
    for name in weight_names(info.ages):
        shutil.copyfile(weights[name], folder / f"{name}.safetensors")
    write_json(folder / INFO, info.model_dump(mode="json"))


class Bundle:
    """A loaded bundle on one device."""

    def __init__(self, info: BundleInfo, networks: Mapping[str, FilmClassifier], device: str):
        self.info = info
        self.networks = dict(networks)
        self.device = torch.device(device)

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> Self:
        """Read a bundle. Raises PedfracError where a file is missing or does not fit."""
        info = _read_info(folder)
        classes = {"age": len(info.ages)}
        networks = {
            name: _load_network(
                folder / f"{name}.safetensors",
                (info.age if name == "age" else info.fracture).model,
                classes.get(name, len(FRACTURE_CLASSES)),
            ).to(device)
            for name in weight_names(info.ages)
        }
        return cls(info, networks, str(device))

    def specialist(self, group: int) -> FilmClassifier:
        """Return the fracture network of an age group."""
        return self.networks[f"specialist-{self.info.ages.name(group)}"]

    def score(
        self,
        fracture_films: NDArray[np.uint8],
        age_films: NDArray[np.uint8],
        ages: ArrayLike,
    ) -> pd.DataFrame:
        """Score prepared films, uint8 (n, size, size), of ages in years (n,); NaN where unknown.

        Returns one row a film: ``group`` (of the age given; -1 if unknown or outside the bounds),
        ``group_seen`` and ``age_0``… (age classifier), and probabilities of fracture:
        ``generalist``, ``recorded`` and ``seen`` (specialist of the one group or the other; NaN
        where there is no recorded group).
        """
        groups = self.info.ages.assign(ages)
        by_age = self._probabilities(self.networks["age"], age_films)
        seen = by_age.argmax(axis=1)
        generalist = self._probabilities(self.networks["generalist"], fracture_films)[:, 1]
        frame = pd.DataFrame({"group": groups, "group_seen": seen, "generalist": generalist})
        frame["recorded"] = self._route(fracture_films, groups)
        frame["seen"] = self._route(fracture_films, seen)
        columns = [f"age_{k}" for k in range(len(self.info.ages))]
        return pd.concat([frame, pd.DataFrame(by_age, columns=columns)], axis=1)

    def score_packs(
        self, fracture: Pack, age: Pack, filestems: list[str], batch_size: int = 64
    ) -> pd.DataFrame:
        """Score films of two packs. Raises PedfracError where a pack was prepared differently."""
        self._refuse_other(fracture.preparation, self.info.fracture.preparation, "fracture")
        self._refuse_other(age.preparation, self.info.age.preparation, "age")
        rows, age_rows = fracture.rows(filestems), age.rows(filestems)
        years = fracture.index["age"].to_numpy()
        parts = [
            self.score(fracture.images[rows[some]], age.images[age_rows[some]], years[rows[some]])
            for some in np.split(np.arange(len(rows)), range(batch_size, len(rows), batch_size))
        ]
        frame = pd.concat(parts, ignore_index=True)
        frame.insert(0, "filestem", filestems)
        return frame

    def _route(self, films: NDArray[np.uint8], groups: NDArray[np.int64]) -> NDArray[np.float64]:
        scores = np.full(len(films), np.nan)
        for group in np.unique(groups[groups >= 0]):
            some = groups == group
            scores[some] = self._probabilities(self.specialist(group), films[some])[:, 1]
        return scores

    @torch.inference_mode()
    def _probabilities(
        self, network: FilmClassifier, films: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        logits = network(to_films(films, self.device)).float()
        return logits.softmax(dim=1).double().cpu().numpy()

    @staticmethod
    def _refuse_other(found: Preparation, wanted: Preparation, model: str) -> None:
        if found != wanted:
            raise PedfracError(
                f"the {model} films were prepared as {found.model_dump()}, but the bundle's "
                f"networks learned from {wanted.model_dump()}"
            )


def _read_info(folder: Path) -> BundleInfo:
    path = folder / INFO
    try:
        return BundleInfo.model_validate_json(path.read_text())
    except OSError:
        raise PedfracError(f"{folder}: is no bundle, it holds no {INFO}") from None
    except ValidationError as error:
        raise PedfracError(f"{path}: {explain_invalid(error, BundleInfo)}") from None


def _load_network(path: Path, config: ModelConfig, classes: int) -> FilmClassifier:
    model = build_model(config, classes, load_weights=False)
    try:
        model.load_state_dict(load_file(path))
    except Exception as error:  # missing, cut short or of another network: each its own type
        raise PedfracError(f"{path}: cannot be loaded as {config.backbone} ({error})") from error
    return model.eval()
