"""Reference profile: what images and scores were like on the data that made a bundle.

It lies beside the bundle's networks, so that images scored later can be compared with it. It holds
numbers of single images in random order, but no name, path, date or number of a patient. Not here:
how it is made (profiling) and compared (drift).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pedfrac.bundle.checksums import seal, verify
from pedfrac.bundle.embedding import Basis
from pedfrac.errors import PedfracError
from pedfrac.imaging.image_statistics import STATISTICS
from pedfrac.storage.files import write_json

NUMBERS, ABOUT = "profile.safetensors", "profile.json"
SCHEMA_VERSION = 1
WATCHED = "generalist"  # the network whose features are the embedding: it sees images of all ages
IMAGE = tuple(f"image_{name}" for name in STATISTICS)
CONTINUOUS = ("age", "probability", "threshold", *IMAGE)
CATEGORIES = ("sex", "laterality", "view", "age_group_used", "age_group_seen", "call")
_VIEWS = {
    **dict.fromkeys(("1", "AP", "PA"), "frontal"),
    **dict.fromkeys(("2", "LL", "RL", "RLD", "LLD", "LAT", "LATERAL"), "lateral"),
    **dict.fromkeys(("3", "RLO", "LLO", "OBL", "OBLIQUE"), "other"),
}


@dataclass(frozen=True, eq=False)
class Profile:
    """A reference: ``images``, one row each, the ``basis`` of their features, and ``about`` both.

    ``images``: patient (a number within this profile alone), fractured (bool), CONTINUOUS (NaN: not
    known), CATEGORIES (empty: not known) and the features that the basis makes. ``about``: which
    images they are, and how many.
    """

    images: pd.DataFrame
    basis: Basis
    about: dict[str, Any]

    @property
    def features(self) -> list[str]:
        """The columns of features."""
        return feature_names(len(self.basis))


def feature_names(count: int) -> list[str]:
    """Return the names of ``count`` feature columns."""
    return [f"feature_{number:02d}" for number in range(count)]


def views(values: pd.Series) -> pd.Series:
    """Return views as frontal, lateral, other or empty, from numbers of the data set or DICOM's."""
    return values.astype(str).map(_VIEWS).fillna("")


def save_profile(folder: Path, profile: Profile) -> None:
    """Write a profile beside a bundle's networks."""
    images = profile.images
    names = {name: sorted(set(images[name])) for name in CATEGORIES}
    tensors = {
        "patient": images["patient"].to_numpy(np.int64),
        "fractured": images["fractured"].to_numpy(np.uint8),
        "basis.mean": profile.basis.mean,
        "basis.components": np.ascontiguousarray(profile.basis.components),
        **{name: images[name].to_numpy(np.float64) for name in (*CONTINUOUS, *profile.features)},
        **{
            name: np.searchsorted(levels, images[name].to_numpy(str)).astype(np.int64)
            for name, levels in names.items()
        },
    }
    (folder / NUMBERS).write_bytes(save(tensors))
    write_json(
        folder / ABOUT, {"schema_version": SCHEMA_VERSION, "names": names, "about": profile.about}
    )
    seal(folder, [NUMBERS, ABOUT])


def has_profile(folder: Path) -> bool:
    """Return whether a bundle has a reference profile."""
    return (folder / ABOUT).is_file()


def load_profile(folder: Path) -> Profile:
    """Read the profile of a bundle; raise PedfracError where it is missing or damaged."""
    if not has_profile(folder):
        raise PedfracError(
            f"{folder}: holds no {ABOUT}: the bundle was made without a reference profile, so "
            "nothing can be compared with it; retraining makes one"
        )
    verify(folder, [NUMBERS, ABOUT])
    try:
        told = json.loads((folder / ABOUT).read_text())
        if told["schema_version"] != SCHEMA_VERSION:
            raise PedfracError(
                f"{folder / ABOUT}: schema_version {told['schema_version']}; "
                f"allowed is {SCHEMA_VERSION}"
            )
        tensors = load_file(folder / NUMBERS)
        basis = Basis(tensors["basis.mean"], tensors["basis.components"])
        numbers = ("patient", *CONTINUOUS, *feature_names(len(basis)))
        images = pd.DataFrame({name: tensors[name] for name in numbers})
        images["fractured"] = tensors["fractured"].astype(bool)
        for name in CATEGORIES:
            images[name] = np.array(told["names"][name], dtype=object)[tensors[name]]
        return Profile(images, basis, told["about"])
    except (OSError, ValueError, KeyError, IndexError, SafetensorError) as error:
        raise PedfracError(f"{folder}: its reference profile cannot be read ({error})") from None
