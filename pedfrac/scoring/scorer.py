"""Scoring: from what the networks say of an image to one probability of a fracture and a call.

All of it is fitted on validation images. Not here: running the networks (bundle) and judging what
comes of it (evaluation).
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from pedfrac.config.base import Section
from pedfrac.config.evaluation import Intended, ScoringConfig
from pedfrac.errors import PedfracError
from pedfrac.scoring.calibrators import SURE, Calibrators, fit_calibrators, shifted
from pedfrac.scoring.model_selection import Choice, Selection, chosen_scores, select_model
from pedfrac.scoring.studies import to_studies
from pedfrac.scoring.thresholds import Band, choose_band, choose_thresholds
from pedfrac.statistics.intervals import Floats

logger = logging.getLogger(__name__)

GENERALIST = "network_generalist"  # columns of what networks say, before anything is fitted
SPECIALIST = "network_{}"
ScorerName = Literal["bundle", "specialist", "generalist"]
SCORERS: tuple[ScorerName, ...] = ("bundle", "specialist", "generalist")


class Scorer(Section):
    """How images of each age group (n of them) get a probability and a call; all tuples are (n,).

    ``thresholds``: an image is called fractured from there on, a study from ``study_thresholds``.
    Images below ``low`` are called normal, from ``high`` on fractured, those between go to a
    reader; null: no image is called so, for the ``band_reason``. Fitted on ``intended``
    examinations, of whose images the share ``prevalence`` is fractured.
    """

    choices: tuple[Choice, ...]
    calibrators: Calibrators
    pooled_threshold: float
    thresholds: tuple[float, ...]
    threshold_weights: tuple[float, ...]
    study_thresholds: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    band_reason: str = ""
    intended: Intended = "all examinations"
    prevalence: float | None = None

    def at_prevalence(self, prevalence: float) -> "Scorer":
        """Return the scorer whose probabilities are for another prevalence, by Bayes' rule.

        Log odds move by the difference of the prior log odds (Saerens et al., Neural Computation
        2002), thresholds with them: calls stay as they are. Raises PedfracError where the scorer
        does not know for which prevalence it was fitted.
        """
        if self.prevalence is None:
            raise PedfracError(
                "the bundle does not state for which prevalence its probabilities are; "
                "retrain, or leave out the prevalence"
            )
        shift = float(_odds(prevalence) - _odds(self.prevalence))

        def moved(bounds: Sequence[float | None]) -> tuple[float | None, ...]:
            return tuple(None if one is None else float(shifted(one, shift)) for one in bounds)

        return self.model_copy(
            update={
                "calibrators": self.calibrators.with_shift(shift),
                "pooled_threshold": float(shifted(self.pooled_threshold, shift)),
                "thresholds": moved(self.thresholds),
                "study_thresholds": moved(self.study_thresholds),
                "low": moved(self.low),
                "high": moved(self.high),
                "prevalence": prevalence,
            }
        )

    def uncalibrated(self, specialists: Floats, generalist: Floats) -> Floats:
        """Return what the chosen networks say, (images, n), were the images of each age group.

        ``specialists`` (images, n), NaN where one was not asked; ``generalist`` (images,).
        """
        columns = [
            chosen_scores(choice, specialists[:, group], generalist)
            for group, choice in enumerate(self.choices)
        ]
        return np.stack(columns, axis=1)

    def probabilities(self, specialists: Floats, generalist: Floats) -> Floats:
        """Return the calibrated probabilities of ``uncalibrated``, (images, n)."""
        said = self.uncalibrated(specialists, generalist)
        return np.stack(
            [calibrator(said[:, k]) for k, calibrator in enumerate(self.calibrators.groups)], axis=1
        )

    def bounds(self, groups: ArrayLike) -> tuple[Floats, Floats]:
        """Return the probabilities (n,) below which images are normal, and from which fractured."""
        own = np.asarray(groups, np.int64)
        low = np.array([-np.inf if one is None else one for one in self.low])[own]
        high = np.array([np.inf if one is None else one for one in self.high])[own]
        return low, high


def select_networks(
    validation: pd.DataFrame, groups: int, config: ScoringConfig
) -> list[Selection]:
    """Return, for each age group, which network scores it and why (see ``select_model``).

    ``validation``: one row an image: patient_id, group, fracture_visible, and what the networks
    say.
    """
    images = [validation[validation["group"] == group] for group in range(groups)]
    return [
        select_model(
            some["patient_id"],
            some["fracture_visible"],
            some[SPECIALIST.format(group)],
            some[GENERALIST],
            config,
        )
        for group, some in enumerate(images)
    ]


def fit_scorers(
    validation: pd.DataFrame, choices: Sequence[Choice], config: ScoringConfig
) -> dict[str, Scorer]:
    """Return how the bundle, the specialists alone and the generalist alone score images.

    ``validation`` as for ``select_networks``, with study_number; ``choices`` by age group. The
    generalist knows no age: one map and one threshold serve all images.
    """
    alone = config.model_copy(
        update={
            "threshold_shrinkage": np.inf,
            "calibration": config.calibration.model_copy(update={"shrinkage": np.inf}),
        }
    )
    count = len(choices)
    return {
        "bundle": fit_scorer(validation, choices, config),
        "specialist": fit_scorer(validation, ["specialist"] * count, config),
        "generalist": fit_scorer(validation, ["generalist"] * count, alone),
    }


def fit_scorer(
    everything: pd.DataFrame, choices: Sequence[Choice], config: ScoringConfig
) -> Scorer:
    """Return the map, thresholds and band, fitted on validation images of the intended use."""
    validation, intended = of_intended_use(everything, config)
    group = validation["group"].to_numpy(dtype=np.int64)
    truth = validation["fracture_visible"].to_numpy(dtype=bool)
    patients = validation["patient_id"].to_numpy()
    said = np.empty(len(validation))
    for index, choice in enumerate(choices):
        some = group == index
        images = validation[some]
        said[some] = chosen_scores(choice, images[SPECIALIST.format(index)], images[GENERALIST])
    where = group, patients, len(choices)
    calibrators = fit_calibrators(truth, said, *where, config.calibration)
    probability = calibrators(said, group)
    images = choose_thresholds(truth, probability, *where, config)
    band = _band(truth, probability, np.array(images.groups)[group], config, patients)
    return Scorer(
        choices=tuple(choices),
        calibrators=calibrators,
        pooled_threshold=images.pooled,
        thresholds=images.groups,
        threshold_weights=images.weights,
        study_thresholds=_study_thresholds(validation, probability, len(choices), config),
        low=tuple(_moved(band.low, one) for one in images.groups),
        high=tuple(_moved(band.high, one) for one in images.groups),
        band_reason=band.reason,
        intended=intended,
        prevalence=float(truth.mean()) if len(truth) else None,
    )


def of_intended_use(images: pd.DataFrame, config: ScoringConfig) -> tuple[pd.DataFrame, Intended]:
    """Return the images of the intended examinations, and which these are.

    All images where the intended ones hold fewer than ``config.selection_patients`` patients with
    fractured, or with normal images: too few to set a threshold.
    """
    if config.intended == "all examinations":
        return images, "all examinations"
    some = images[images["initial_exam"].to_numpy(dtype=bool)]
    patients = some.groupby("fracture_visible")["patient_id"].nunique()
    if len(patients) < 2 or patients.min() < config.selection_patients:
        logger.warning(
            "thresholds are of all examinations: fewer than %d patients with fractured or with "
            "normal images have an initial examination among the validation images",
            config.selection_patients,
        )
        return images, "all examinations"
    return some, "initial examinations"


def scored(images: pd.DataFrame, scorers: Mapping[str, Scorer]) -> pd.DataFrame:
    """Return images with the probabilities made from the network outputs.

    ``images``: group, group_seen, age_0…, network_generalist and network_0…. Added: ``bundle``,
    ``specialist`` and ``generalist``, by the recorded group, NaN where there is none (but for the
    generalist); ``seen``, the bundle's by the group that the image shows, and ``uncalibrated``,
    ``bundle`` before calibration.
    """
    count = len(scorers["bundle"].choices)
    said = images[[SPECIALIST.format(group) for group in range(count)]].to_numpy(dtype=np.float64)
    generalist = images[GENERALIST].to_numpy(dtype=np.float64)
    group, seen = (images[name].to_numpy(dtype=np.int64) for name in ("group", "group_seen"))
    by_group = {name: scorers[name].probabilities(said, generalist) for name in SCORERS}
    added = {name: _of_group(by_group[name], group) for name in ("bundle", "specialist")}
    added["generalist"] = scorers["generalist"].calibrators.pooled(generalist)
    added["seen"] = _of_group(by_group["bundle"], seen)
    plain = scorers["bundle"].uncalibrated(said, generalist)
    return images.assign(**added, uncalibrated=_of_group(plain, group))


def routed(images: pd.DataFrame, scorer: Scorer) -> Floats:
    """Return the probability of each image, (images, n), were it of each age group."""
    names = [SPECIALIST.format(group) for group in range(len(scorer.choices))]
    return scorer.probabilities(
        images[names].to_numpy(dtype=np.float64), images[GENERALIST].to_numpy(dtype=np.float64)
    )


def _of_group(values: Floats, group: NDArray[np.int64]) -> Floats:
    """Return each image's value (n,) in the column of its group; NaN where it is in none."""
    picked = values[np.arange(len(values)), group.clip(0)]
    return np.where(group >= 0, picked, np.nan)


def _band(
    truth: NDArray[np.bool_],
    probability: Floats,
    threshold: Floats,
    config: ScoringConfig,
    patients: NDArray[Any],
) -> Band:
    """Return the band as odds over those of each image's own threshold, which lies at 0.5.

    So all age groups teach one band: few have the images to teach one of their own.
    """
    relative = expit(_odds(probability) - _odds(threshold))
    return choose_band(truth, relative, 0.5, config.abstention, patients)


def _moved(bound: float | None, threshold: float) -> float | None:
    """Return a bound of the band as a probability, from its odds over a threshold's."""
    if bound is None:
        return None
    return threshold if bound == 0.5 else float(expit(_odds(bound) + _odds(threshold)))


def _odds(probability: ArrayLike) -> Any:
    return logit(np.clip(probability, SURE, 1 - SURE))


def _study_thresholds(
    validation: pd.DataFrame, probability: Floats, groups: int, config: ScoringConfig
) -> tuple[float, ...]:
    columns = ["filestem", "patient_id", "study_number", "fracture_visible", "group"]
    studies = to_studies(validation[columns].assign(bundle=probability), config.study_score)
    found = choose_thresholds(
        studies["fracture_visible"],
        studies["bundle"],
        studies["group"],
        studies["patient_id"],
        groups,
        config,
    )
    return found.groups
