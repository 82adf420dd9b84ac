"""Variables whose distribution is compared between a window and the reference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pedfrac.bundle.reference_profile import Profile
from pedfrac.config.monitoring import DriftConfig
from pedfrac.monitoring.permutation_tests import Images
from pedfrac.monitoring.time_windows import Window
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

RESAMPLES = 1000  # of patients, behind the interval of the expected calibration error
EMBEDDING = "embedding"
Findings = dict[str, Any]


@dataclass(frozen=True)
class Variable:
    """Something that is compared: its title, and what is said where it falls or rises.

    ``within``: columns whose mix may change without this being one; images are compared within each
    kind of them.
    """

    name: str
    title: str
    less: str = ""
    more: str = ""
    within: tuple[str, ...] = ()


WHO = ("age_group_used", "view")
WHAT = (*WHO, "fracture_called")
NUMBERS = (
    Variable("age", "Age in years", "younger children", "older children"),
    Variable("probability", "Probability of a fracture", "fewer fractures", "more fractures", WHO),
    Variable("image_brightness", "Brightness", "darker images", "brighter images", WHAT),
    Variable(
        "image_contrast", "Contrast", "images of less contrast", "images of more contrast", WHAT
    ),
    Variable(
        "image_background",
        "Background, share of the image",
        "less background around the wrist",
        "more background around the wrist",
        WHAT,
    ),
    Variable(
        "image_sharpness",
        "Sharpness",
        "blurred images, or of lower resolution",
        "sharper images",
        WHAT,
    ),
    Variable(
        "image_noise", "Noise in grey levels of 255", "smoother images", "noisier images", WHAT
    ),
    Variable(
        "image_long_side",
        "Long side in pixels",
        "images of fewer pixels",
        "images of more pixels",
        WHAT,
    ),
    Variable("image_aspect", "Width over height", "narrower images", "wider images", WHAT),
)
KINDS = (
    Variable("sex", "Sex", more="more {}"),
    Variable("laterality", "Side", more="more {} wrists"),
    Variable("view", "View", more="more {} views"),
)
SEEN_AGE = Variable("age_group_seen", "Age group as the image shows it", more="more that look {}")
LOOK = Variable(
    EMBEDDING, "What the network sees", more="images that the network sees otherwise", within=WHAT
)
CALLED = {"M": "boys", "F": "girls", "O": "of other sex", "L": "left", "R": "right"}


@dataclass(frozen=True, eq=False)
class Pair:
    """Images of reference and window in one table, reference first, with ``is_window`` (n,)."""

    images: pd.DataFrame
    is_window: NDArray[np.bool_]
    known: bool
    features: list[str]
    config: DriftConfig

    @classmethod
    def of(cls, profile: Profile, window: Window, config: DriftConfig) -> "Pair":
        """Join a profile and a window, of which whole patients are left out where it is large."""
        chosen = thin_out(window.images, config)
        features = profile.features
        if features and chosen[features].isna().any(axis=None):
            features = []
        columns = [*profile.images.columns]
        images = pd.concat(
            [profile.images, chosen.reindex(columns=columns).astype({"fractured": float})],
            ignore_index=True,
        )
        is_window = np.arange(len(images)) >= len(profile.images)
        images["patient"] += np.where(is_window, profile.images["patient"].max() + 1, 0)
        images["fracture_called"] = images["probability"] >= images["threshold"]
        if images.loc[is_window, "age"].isna().mean() > 0.5:
            images["age_group_used"] = images["age_group_seen"]  # alike on both sides
        return cls(images, is_window, window.known, features, config)

    def bootstrap(self) -> PatientBootstrap:
        """Return the patients of all images, from whom intervals are made."""
        return PatientBootstrap(self.images["patient"], RESAMPLES, self.config.seed)

    def images_of(self, variable: Variable) -> Images:
        """Return the images as a comparison of a variable needs them."""
        stratum = np.zeros(len(self.images), np.int64)
        if within := self.held_still(variable):
            stratum = self.images.groupby(within, sort=False).ngroup().to_numpy().astype(np.int64)
        patient = self.images["patient"].to_numpy(np.int64)
        return Images(
            self.is_window, patient, stratum, self.known, self.config.draws, self.config.seed
        )

    def held_still(self, variable: Variable) -> list[str]:
        """Return within which columns a variable is compared: those that most images tell."""
        told = [(self.images.loc[self.is_window, name] != "").mean() for name in variable.within]
        return [name for name, share in zip(variable.within, told, strict=True) if share > 0.5]

    def has(self, variable: Variable) -> NDArray[np.bool_]:
        """Return of which images a variable is known, (n,)."""
        if variable.name == EMBEDDING:
            return np.full(len(self.images), bool(self.features))
        values = self.images[variable.name]
        return (values.notna() & (values.astype(str) != "")).to_numpy()

    def is_known(self, variable: Variable) -> bool:
        """Return whether enough images on both sides have a variable."""
        has = self.has(variable)
        least = min(has[self.is_window].sum(), has[~self.is_window].sum())
        return bool(least >= self.config.fewest_images)


def kinds_of(values: pd.Series) -> NDArray[np.bool_]:
    """Return one column per distinct value, true where an image has it."""
    return values.to_numpy(str)[:, None] == np.unique(values.to_numpy(str))


def thin_out(images: pd.DataFrame, config: DriftConfig) -> pd.DataFrame:
    """Return images of whole patients in random order, at most as many as are compared."""
    random = np.random.default_rng(config.seed)
    patients = random.permutation(images["patient"].unique())
    counts = images["patient"].value_counts()[patients].cumsum()
    return images[
        images["patient"].isin(patients[counts <= max(config.most_images, counts.iloc[0])])
    ]


BY_NAME: Mapping[str, Variable] = {one.name: one for one in (*NUMBERS, *KINDS, SEEN_AGE, LOOK)}
