"""Variables whose distribution is compared between a window and the reference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pedfrac.bundle.reference_profile import Profile
from pedfrac.config.monitoring import MonitorConfig
from pedfrac.monitoring.permutation_tests import Films
from pedfrac.monitoring.time_windows import Window
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

RESAMPLES = 1000  # of patients, behind the interval of the expected calibration error
EMBEDDING = "embedding"
Findings = dict[str, Any]


@dataclass(frozen=True)
class Variable:
    """Something that is compared: its title, and what is said where it falls or rises.

    ``within``: columns whose mix may change without this being one; films are compared within each
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
    Variable("film_brightness", "Brightness", "darker films", "brighter films", WHAT),
    Variable("film_contrast", "Contrast", "films of less contrast", "films of more contrast", WHAT),
    Variable(
        "film_background",
        "Background, share of the film",
        "less background around the wrist",
        "more background around the wrist",
        WHAT,
    ),
    Variable(
        "film_sharpness",
        "Sharpness",
        "blurred films, or of lower resolution",
        "sharper films",
        WHAT,
    ),
    Variable("film_noise", "Noise in grey levels of 255", "smoother films", "noisier films", WHAT),
    Variable(
        "film_long_side",
        "Long side in pixels",
        "films of fewer pixels",
        "films of more pixels",
        WHAT,
    ),
    Variable("film_aspect", "Width over height", "narrower films", "wider films", WHAT),
)
KINDS = (
    Variable("sex", "Sex", more="more {}"),
    Variable("laterality", "Side", more="more {} wrists"),
    Variable("view", "View", more="more {} views"),
)
SEEN_AGE = Variable("age_group_seen", "Age group as the film shows it", more="more that look {}")
LOOK = Variable(
    EMBEDDING, "What the network sees", more="films that the network sees otherwise", within=WHAT
)
CALLED = {"M": "boys", "F": "girls", "O": "of other sex", "L": "left", "R": "right"}


@dataclass(frozen=True, eq=False)
class Pair:
    """Films of reference and window in one table, reference first, with ``is_window`` (n,)."""

    films: pd.DataFrame
    is_window: NDArray[np.bool_]
    known: bool
    features: list[str]
    config: MonitorConfig

    @classmethod
    def of(cls, profile: Profile, window: Window, config: MonitorConfig) -> "Pair":
        """Join a profile and a window, of which whole patients are left out where it is large."""
        chosen = thin_out(window.films, config)
        features = profile.features
        if features and chosen[features].isna().any(axis=None):
            features = []
        columns = [*profile.films.columns]
        films = pd.concat(
            [profile.films, chosen.reindex(columns=columns).astype({"fractured": float})],
            ignore_index=True,
        )
        is_window = np.arange(len(films)) >= len(profile.films)
        films["patient"] += np.where(is_window, profile.films["patient"].max() + 1, 0)
        films["fracture_called"] = films["probability"] >= films["threshold"]
        if films.loc[is_window, "age"].isna().mean() > 0.5:
            films["age_group_used"] = films["age_group_seen"]  # alike on both sides
        return cls(films, is_window, window.known, features, config)

    def bootstrap(self) -> PatientBootstrap:
        """Return the patients of all films, from whom intervals are made."""
        return PatientBootstrap(self.films["patient"], RESAMPLES, self.config.seed)

    def films_of(self, variable: Variable) -> Films:
        """Return the films as a comparison of a variable needs them."""
        stratum = np.zeros(len(self.films), np.int64)
        if within := self.held_still(variable):
            stratum = self.films.groupby(within, sort=False).ngroup().to_numpy().astype(np.int64)
        patient = self.films["patient"].to_numpy(np.int64)
        return Films(
            self.is_window, patient, stratum, self.known, self.config.draws, self.config.seed
        )

    def held_still(self, variable: Variable) -> list[str]:
        """Return within which columns a variable is compared: those that most films tell."""
        told = [(self.films.loc[self.is_window, name] != "").mean() for name in variable.within]
        return [name for name, share in zip(variable.within, told, strict=True) if share > 0.5]

    def has(self, variable: Variable) -> NDArray[np.bool_]:
        """Return of which films a variable is known, (n,)."""
        if variable.name == EMBEDDING:
            return np.full(len(self.films), bool(self.features))
        values = self.films[variable.name]
        return (values.notna() & (values.astype(str) != "")).to_numpy()

    def is_known(self, variable: Variable) -> bool:
        """Return whether enough films on both sides have a variable."""
        has = self.has(variable)
        least = min(has[self.is_window].sum(), has[~self.is_window].sum())
        return bool(least >= self.config.fewest_films)


def kinds_of(values: pd.Series) -> NDArray[np.bool_]:
    return values.to_numpy(str)[:, None] == np.unique(values.to_numpy(str))


def thin_out(films: pd.DataFrame, config: MonitorConfig) -> pd.DataFrame:
    """Return films of whole patients in random order, at most as many as are compared."""
    random = np.random.default_rng(config.seed)
    patients = random.permutation(films["patient"].unique())
    counts = films["patient"].value_counts()[patients].cumsum()
    return films[films["patient"].isin(patients[counts <= max(config.most_films, counts.iloc[0])])]


BY_NAME: Mapping[str, Variable] = {one.name: one for one in (*NUMBERS, *KINDS, SEEN_AGE, LOOK)}
