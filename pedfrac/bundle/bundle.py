"""The result of a run: every network, how their answers are scored, preparation and provenance.

One folder of safetensors and JSON that predicts without training configuration, Prefect or MLflow.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, ValidationError
from safetensors.torch import load_file
from torch import Tensor

from pedfrac.age_groups import AgeGroups
from pedfrac.bundle.checksums import seal, verify
from pedfrac.config.base import Section
from pedfrac.config.data import Preparation
from pedfrac.config.evaluation import Views
from pedfrac.config.loading import explain_invalid
from pedfrac.config.serving import Runtime
from pedfrac.config.training import HeadKind, MapShape, ModelConfig
from pedfrac.errors import PedfracError
from pedfrac.models.classifier import ImageClassifier, build_model
from pedfrac.models.heads import Classes, Head, make_head
from pedfrac.models.inputs import to_images
from pedfrac.packs.pack import Pack
from pedfrac.scoring.model_selection import Selection
from pedfrac.scoring.scorer import GENERALIST, SPECIALIST, Scorer, scored
from pedfrac.storage.files import content_hash, write_json

INFO = "bundle.json"
BATCH = 64  # images that go through a network together
FRACTURE_CLASSES = ("normal", "fractured")
Specialists = Literal["needed", "both", "every"]


class Network(Section):
    """A network of the bundle: how to build it and how its images are prepared."""

    model: ModelConfig
    preparation: Preparation
    maps: MapShape | None = Field(None, description="Its finding maps, if it has any")


class BundleInfo(Section):
    """What a bundle is, apart from its weights."""

    schema_version: Literal[2] = 2
    age_bounds: tuple[float, ...]
    fracture: Network
    age: Network
    age_head: HeadKind = "classes"
    scorers: dict[Literal["bundle", "specialist", "generalist"], Scorer]
    selection: tuple[Selection, ...] = Field(
        default=(), description="By age group, why its network was chosen"
    )
    views: Views = "one"
    provenance: dict[str, Any] = Field(default_factory=dict)

    @property
    def ages(self) -> AgeGroups:
        """The age groups that route images to specialists."""
        return AgeGroups(self.age_bounds)


def weight_names(ages: AgeGroups) -> list[str]:
    """Return the names of a bundle's networks: age, generalist and one for each age group."""
    return ["age", "generalist", *(f"specialist-{name}" for name in ages.names)]


def write_bundle(folder: Path, info: BundleInfo, weights: Mapping[str, Path]) -> None:
    """Write a bundle from its description and a file of weights for each network."""
    names = weight_names(info.ages)
    for name in names:
        shutil.copyfile(weights[name], folder / f"{name}.safetensors")
    seal(folder, [f"{name}.safetensors" for name in names])
    write_info(folder, info)


def write_info(folder: Path, info: BundleInfo) -> None:
    """Write the description of a bundle whose networks are in the folder, and seal it."""
    write_json(folder / INFO, info.model_dump(mode="json"))
    seal(folder, [INFO])


def bundle_digest(folder: Path) -> str:
    """Return the SHA-256 over the description and all weights of a bundle, exported or not.

    Raises PedfracError where one of these files is not the one that was sealed.
    """
    names = weight_names(read_info(folder).ages)
    suffix = "onnx" if (folder / f"{names[0]}.onnx").is_file() else "safetensors"
    return content_hash(verify(folder, [INFO, *(f"{name}.{suffix}" for name in names)]))


class Answering(Protocol):
    """A network as scoring needs it, whatever runs it."""

    def answers(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return probabilities (n, k) and ages in years (n,) of images (n, 1, size, size), 0…1."""


class Bundle:
    """A loaded bundle on one device."""

    def __init__(self, info: BundleInfo, networks: Mapping[str, Answering], device: str):
        self.info = info
        self.networks = dict(networks)
        self.device = torch.device(device)

    @classmethod
    def load(
        cls, folder: Path, device: str | torch.device = "cpu", runtime: Runtime = "torch"
    ) -> Self:
        """Read a bundle; with the runtime ``onnx`` one that was exported, for the CPU alone.

        Raises PedfracError where a file is missing, is not the one that was sealed, or does not
        fit.
        """
        info = read_info(folder)
        heads: dict[str, Head] = {"age": make_head(info.age_head, info.ages)}
        parts = {
            name: (
                (info.age if name == "age" else info.fracture).model,
                heads.get(name, Classes(len(FRACTURE_CLASSES))),
            )
            for name in weight_names(info.ages)
        }
        if runtime == "onnx":
            from pedfrac.bundle.onnx_runtime import load_networks  # ONNX Runtime is slow to import

            return cls(info, load_networks(folder, parts, device), str(device))
        networks = {
            name: _load_network(
                folder / f"{name}.safetensors",
                *part,
                (info.age if name == "age" else info.fracture).maps,
            ).to(device)
            for name, part in parts.items()
        }
        return cls(info, networks, str(device))

    def at_prevalence(self, prevalence: float) -> "Bundle":
        """Return the same networks with probabilities for another prevalence (see ``Scorer``)."""
        scorers = {name: one.at_prevalence(prevalence) for name, one in self.scorers.items()}
        info = self.info.model_copy(update={"scorers": scorers})
        return Bundle(info, self.networks, str(self.device))

    def chosen(self, group: int) -> dict[str, ImageClassifier]:
        """Return the fracture networks that score an age group: one, or two that are averaged.

        Raises PedfracError where they are not PyTorch's, since their inside is asked for.
        """
        networks = {name: self.networks[name] for name in self._chosen_names(group)}
        found = {name: one for name, one in networks.items() if isinstance(one, ImageClassifier)}
        if len(found) < len(networks):
            raise PedfracError("exported networks do not show their features; use the bundle's own")
        return found

    def _chosen_names(self, group: int) -> list[str]:
        own = f"specialist-{self.ages.name(group)}"
        choice = self.scorers["bundle"].choices[group]
        return {
            "specialist": [own],
            "generalist": ["generalist"],
            "average": [own, "generalist"],
        }[choice]

    @property
    def ages(self) -> AgeGroups:
        """The age groups that route images to specialists."""
        return self.info.ages

    @property
    def scorers(self) -> dict[str, Scorer]:
        """How what the networks say becomes probabilities and calls."""
        return {str(name): scorer for name, scorer in self.info.scorers.items()}

    def score(
        self,
        fracture_images: NDArray[np.uint8],
        age_images: NDArray[np.uint8],
        ages: ArrayLike,
        *,
        specialists: Specialists = "both",
    ) -> pd.DataFrame:
        """Score prepared images, uint8 (n, size, size), of ages in years (n,); NaN where unknown.

        Returns one row an image: ``group`` (of the age given; -1 if unknown or outside the bounds),
        ``group_seen`` and ``age_0``… (age classifier; ``age_seen``, in years, where its head
        estimates the age), ``network_generalist`` and ``network_0``…, what each network says, and
        what is made of it (see ``scoring.scored``). NaN where a specialist was not asked. Asked are
        ``needed`` ones, of which the probability is made that the image's routing calls for,
        ``both`` groups' (recorded and seen), or ``every`` one.
        """
        return scored(self.ask(fracture_images, age_images, ages, specialists), self.scorers)

    def ask(
        self,
        fracture_images: NDArray[np.uint8],
        age_images: NDArray[np.uint8],
        ages: ArrayLike,
        specialists: Specialists = "both",
    ) -> pd.DataFrame:
        """Return what the networks say of images (see ``score``), and nothing made of it."""
        groups = self.ages.assign(ages)
        by_age, years = self._answers("age", age_images)
        seen = by_age.argmax(axis=1)
        frame = pd.DataFrame({"group": groups, "group_seen": seen})
        if years is not None:
            frame["age_seen"] = years
        for group in range(len(self.ages)):
            frame[f"age_{group}"] = by_age[:, group]
        frame[GENERALIST] = self._answers("generalist", fracture_images)[0][:, 1]
        for group, name in enumerate(self.ages.names):
            some = self._asked(group, groups, seen, specialists)
            said = np.full(len(groups), np.nan)
            if some.any():
                said[some] = self._answers(f"specialist-{name}", fracture_images[some])[0][:, 1]
            frame[SPECIALIST.format(group)] = said
        return frame

    def _asked(
        self,
        group: int,
        recorded: NDArray[np.int64],
        seen: NDArray[np.int64],
        specialists: Specialists,
    ) -> NDArray[np.bool_]:
        """Return of which images (n,) an age group's specialist is asked."""
        if specialists == "every":
            return np.ones(len(seen), np.bool_)
        if specialists == "both":
            return (recorded == group) | (seen == group)
        if self.scorers["bundle"].choices[group] == "generalist":
            return np.zeros(len(seen), np.bool_)
        return np.where(recorded >= 0, recorded, seen) == group

    def score_packs(
        self,
        fracture: Pack,
        age: Pack,
        filestems: list[str],
        *,
        specialists: Specialists = "both",
    ) -> pd.DataFrame:
        """Score images of two packs (see ``score``), one row an image, with its filestem.

        Raises PedfracError where a pack was prepared differently.
        """
        return scored(self.ask_packs(fracture, age, filestems, specialists), self.scorers)

    def ask_packs(
        self, fracture: Pack, age: Pack, filestems: list[str], specialists: Specialists = "both"
    ) -> pd.DataFrame:
        """Return what the networks say of images of two packs (see ``ask``)."""
        self._refuse_other(fracture.preparation, self.info.fracture.preparation, "fracture")
        self._refuse_other(age.preparation, self.info.age.preparation, "age")
        rows, age_rows = fracture.rows(filestems), age.rows(filestems)
        years = fracture.index["age"].to_numpy()
        parts = [
            self.ask(
                *(fracture.images[rows[some]], age.images[age_rows[some]], years[rows[some]]),
                specialists,
            )
            for some in np.split(np.arange(len(rows)), range(BATCH, len(rows), BATCH))
        ]
        frame = pd.concat(parts, ignore_index=True)
        frame.insert(0, "filestem", filestems)
        return frame

    def probability(
        self, fracture_images: NDArray[np.uint8], groups: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the bundle's probability of a fracture of images whose age groups (n,) are known.

        The same as ``bundle`` of ``score``, without asking the age classifier.
        """
        scores = np.full(len(fracture_images), np.nan)
        calibrators = self.scorers["bundle"].calibrators.groups
        for group in np.unique(groups):
            images = fracture_images[groups == group]
            said = [self._answers(name, images)[0][:, 1] for name in self._chosen_names(group)]
            scores[groups == group] = calibrators[group](np.mean(said, axis=0))
        return scores

    @torch.inference_mode()
    def _answers(
        self, network: str, images: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return the probabilities (n, classes) and the ages in years (n,), if they are estimated.

        With mirrored views they are means over image and mirror.
        """
        model = self.networks[network]
        parts = [images[start : start + BATCH] for start in range(0, max(1, len(images)), BATCH)]
        turns: list[tuple[int, ...]] = [(), (-1,)] if self.info.views == "mirrored" else [()]
        answers = [
            [model.answers(to_images(part, self.device).flip(turn)) for part in parts]
            for turn in turns
        ]
        probabilities = [torch.cat([part[0] for part in one]) for one in answers]
        years = [
            torch.cat([found for _, found in one if found is not None])
            for one in answers
            if one[0][1] is not None
        ]
        return _mean(probabilities), _mean(years) if years else None

    @staticmethod
    def _refuse_other(found: Preparation, wanted: Preparation, model: str) -> None:
        if found != wanted:
            raise PedfracError(
                f"the {model} images were prepared as {found.model_dump()}, but the bundle's "
                f"networks learned from {wanted.model_dump()}"
            )


def _mean(answers: list[Tensor]) -> NDArray[np.float64]:
    return torch.stack(answers).double().mean(dim=0).cpu().numpy()


def read_info(folder: Path) -> BundleInfo:
    """Return the description of the bundle in a folder.

    Raises PedfracError where there is none, or where it is not the one that was sealed.
    """
    path = folder / INFO
    if not path.is_file():
        raise PedfracError(f"{folder}: is no bundle, it holds no {INFO}")
    verify(folder, [INFO])
    try:
        return BundleInfo.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise PedfracError(f"{path}: {explain_invalid(error, BundleInfo)}") from None


def _load_network(
    path: Path, config: ModelConfig, head: Head, maps: MapShape | None
) -> ImageClassifier:
    verify(path.parent, [path.name])
    model = build_model(config, head, load_weights=False, maps=maps)
    try:
        model.load_state_dict(load_file(path))
    except Exception as error:  # cut short or of another network when sealed: each its own type
        raise PedfracError(f"{path}: cannot be loaded as {config.backbone} ({error})") from error
    return model.eval()
