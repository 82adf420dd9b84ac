"""Splitting: which patients test, train and validate, proven disjoint.

Not here: exclusions (cohort) and age groups of the models; a patient is placed once, for all ages.
"""

import hashlib
import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pedfrac.age_groups import AgeGroups
from pedfrac.config.data import FoldConfig, SplitConfig
from pedfrac.data.split import (
    PLACES,
    SPLIT_TYPES,
    TEST_PATIENT,
    Split,
    SplitReport,
    describe_split,
    refuse_empty,
)
from pedfrac.data.split_file import place_by_file
from pedfrac.data.test_set import draw_test_set, leave_out
from pedfrac.errors import PedfracError

logger = logging.getLogger(__name__)
BALANCED = "balanced pairs"
NO_PLACE = "patient had no part in the previous split"


def make_split(
    cohort: pd.DataFrame,
    config: SplitConfig,
    ages: AgeGroups,
    previous: pd.DataFrame | None = None,
) -> tuple[Split, SplitReport]:
    """Place every patient of a cohort, by rule or by ``config.file``; return split and report.

    ``cohort``: filestem, patient_id, age (years), fracture_visible; the order of rows does
    not matter: the same images and seed give the same split. ``previous``, an earlier
    ``Split.table``, keeps each of its patients where it was; without it a new patient may displace
    a few others, since a test set of fixed size depends on who else is there. A split file
    overrules both. Folds count where one is chosen; those held out in turn are cut from this split
    (``cut_fold``). Raises PedfracError where training or validation would be empty or a patient be
    shared.
    """
    config = config.of_the_bundle
    images = _prepare(cohort, config, ages)
    report: SplitReport = {"source": "file" if config.file else "rule"}
    if config.file:
        report["file"] = place_by_file(images, Path(config.file))
    else:
        report["previous"] = _keep_previous(images, config, previous)
        report["test_intervals"] = draw_test_set(images, config)
        _place_others(images, config)
        if previous is not None:
            report["previous"] |= {"moved_patients": _count_moved(images, previous)}
    if config.balance_training:
        _balance_training(images)
    split = Split(images[list(SPLIT_TYPES)].astype(SPLIT_TYPES).reset_index(drop=True))
    refuse_empty(split, config)
    return split, report | describe_split(images, split, ages)


def cut_fold(
    split: Split, cohort: pd.DataFrame, config: FoldConfig, ages: AgeGroups, fold: int
) -> tuple[Split, SplitReport]:
    """Hold out one of ``config.folds`` of a split's training and validation patients.

    The patients are dealt into folds by age group and fracture, alike for every ``fold``. Those of
    this one become the part ``test``, and of the others ``config.validation_fraction`` validate,
    so that no held-out image has trained, stopped, chosen or calibrated a network of the fold. The
    test set of ``split`` stays out, and so does what it left out but for balance.
    Raises PedfracError where a part would be empty.
    """
    folds = config.folds or 0
    images = _prepare(cohort, config, ages)
    _take_others(images, split)
    pool = images[images["part"] == ""].sort_values(["validation_draw", "patient_id"])
    patients = pool.groupby("patient_id", sort=False).agg(
        group=("group", "min"), fracture=("fracture_visible", "any")
    )
    patients = patients.assign(place="", fold=-1)
    _deal_folds(patients, folds)
    others = patients[patients["fold"] != fold].copy()
    _draw_validation(others, config.validation_fraction)
    patients["place"] = others["place"].reindex(patients.index, fill_value="test")
    _take_places(images, patients)
    if config.balance_training:
        _balance_training(images)
    made = Split(images[list(SPLIT_TYPES)].astype(SPLIT_TYPES).reset_index(drop=True))
    if not all(made.images(part) for part in PLACES):
        raise PedfracError(
            f"split: {len(patients)} patients cannot be cut into {folds} folds, each with patients "
            "to train, to validate and to hold out; lower split.folds"
        )
    return made, {"source": "fold", "fold": fold} | describe_split(images, made, ages)


def _take_others(images: pd.DataFrame, split: Split) -> None:
    """Leave out the images that a split tests or leaves out, but for balance."""
    table = split.table.set_index("filestem").reindex(images["filestem"])
    part, reason = table["part"].to_numpy(), table["reason"].to_numpy()
    out = (part == "left_out") & (reason != BALANCED)
    images.loc[out, ["part", "reason"]] = np.stack([part[out], reason[out]], axis=1)
    leave_out(images, part == "test", TEST_PATIENT)


def _take_places(images: pd.DataFrame, patients: pd.DataFrame) -> None:
    """Give the images without a part that of their patient, and all images their patient's fold."""
    images["fold"] = images["patient_id"].map(patients["fold"]).fillna(-1).astype("int64")
    rest = images["part"] == ""
    images.loc[rest, "place"] = images.loc[rest, "patient_id"].map(patients["place"])
    images.loc[rest, "part"] = images.loc[rest, "place"]


# ---- images in a fixed order -------------------------------------------------------------------
def _prepare(cohort: pd.DataFrame, config: FoldConfig, ages: AgeGroups) -> pd.DataFrame:
    """Return the images sorted by filestem, with year of age, stable draws, and no place yet."""
    images = cohort[["filestem", "patient_id", "age", "fracture_visible"]]
    images = images.sort_values("filestem", ignore_index=True)
    images["fracture_visible"] = images["fracture_visible"].astype(bool)
    images["group"] = ages.assign(images["age"])
    outside = images.loc[images["group"] < 0, "filestem"]
    if len(outside):
        raise PedfracError(
            f"split: {len(outside)} images lie outside the ages {ages.bounds[0]:g} to "
            f"{ages.bounds[-1]:g}, such as {outside.iloc[0]}; make the cohort with these bounds"
        )
    images["year"] = _years(images["age"], ages)
    # Two draws: who was not drawn for the test set must not be first to validate.
    for purpose in ("test", "validation"):
        draws = {p: _draw(config.seed, purpose, p) for p in images["patient_id"].unique()}
        images[f"{purpose}_draw"] = images["patient_id"].map(draws)
    images["image_draw"] = [_draw(config.seed, "image", stem) for stem in images["filestem"]]
    return images.assign(part="", reason="", place="", fold=-1)


def _years(age: pd.Series, ages: AgeGroups) -> pd.Series:
    """Return the 1-year interval [k, k+1) of each age; the last bound belongs to the last one."""
    return np.floor(age).clip(upper=math.ceil(ages.bounds[-1]) - 1).astype("int64")


def _draw(seed: int, purpose: str, name: object) -> int:
    """Return a number that depends on nothing but its arguments, on any machine."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big")  # fits an int64


# ---- what an earlier split has decided --------------------------------------------------------
def _keep_previous(
    images: pd.DataFrame, config: SplitConfig, previous: pd.DataFrame | None
) -> dict[str, Any] | None:
    """Give the patients of an earlier split their old place, and its test images their part."""
    if previous is None:
        return None
    Split(previous)
    places, folds = _patient_places(previous), _patient_folds(previous, config)
    known = images["patient_id"].isin(places.index)
    images["place"] = images["patient_id"].map(places).fillna("").astype("str")
    if config.folds:
        images["fold"] = images["patient_id"].map(folds).fillna(-1).astype("int64")
        # The fold decides who validates; patients of a split without folds are dealt like new ones.
        images.loc[images["place"].isin(("train", "validation")), "place"] = "by fold"
    tests = previous.loc[previous["part"] == "test", "filestem"]
    images.loc[images["filestem"].isin(tests), "part"] = "test"
    leave_out(images, known & (images["place"] == "test") & (images["part"] == ""), TEST_PATIENT)
    leave_out(images, known & (images["place"] == ""), NO_PLACE)
    return {
        "kept_patients": int(images.loc[known, "patient_id"].nunique()),
        "new_patients": int(images.loc[~known, "patient_id"].nunique()),
        "vanished_patients": len(set(places.index) - set(images["patient_id"])),
        "vanished_images": len(set(previous["filestem"]) - set(images["filestem"])),
        "vanished_test_images": len(set(tests) - set(images["filestem"])),
    }


def _patient_places(previous: pd.DataFrame) -> pd.Series:
    """Return the place of each patient of a split: its images' part, or what is written there."""
    used = previous[previous["part"] != "left_out"].drop_duplicates("patient_id")
    places = pd.Series("", index=previous["patient_id"].unique(), dtype="str")
    if "place" in previous:
        places.update(previous.drop_duplicates("patient_id").set_index("patient_id")["place"])
    places.update(used.set_index("patient_id")["part"])
    return places


def _count_moved(images: pd.DataFrame, previous: pd.DataFrame) -> int:
    """Count the patients who are elsewhere than before: none, unless another fold validates."""
    before = images["patient_id"].map(_patient_places(previous))
    return int(images.loc[before.notna() & (before != images["place"]), "patient_id"].nunique())


def _patient_folds(previous: pd.DataFrame, config: SplitConfig) -> pd.Series:
    if "fold" not in previous:
        return pd.Series(dtype="int64")
    dealt = previous[previous["fold"] >= 0].drop_duplicates("patient_id")
    folds = dealt.set_index("patient_id")["fold"]
    if config.folds and len(folds) and folds.max() >= config.folds:
        raise PedfracError(
            f"split: the previous split has {folds.max() + 1} folds, but split.folds is "
            f"{config.folds}; use the same number, or split.previous: none"
        )
    return folds


# ---- training and validation ------------------------------------------------------------------
def _place_others(images: pd.DataFrame, config: SplitConfig) -> None:
    """Deal the patients without a place to training and validation, or into folds, by stratum."""
    pool = images[images["part"] == ""].sort_values(["validation_draw", "patient_id"])
    patients = pool.groupby("patient_id", sort=False).agg(
        group=("group", "min"), fracture=("fracture_visible", "any")
    )
    firsts = pool.drop_duplicates("patient_id").set_index("patient_id")
    patients[["place", "fold"]] = firsts[["place", "fold"]]
    if config.folds:
        _deal_folds(patients, config.folds)
        patients["place"] = np.where(patients["fold"] == config.fold, "validation", "train")
    else:
        _draw_validation(patients, config.validation_fraction)
    _take_places(images, patients)


def _draw_validation(patients: pd.DataFrame, fraction: float) -> None:
    """In each stratum the patients of the lowest draw validate, up to its share."""
    for _, stratum in patients.groupby(["group", "fracture"]):
        new = stratum.index[stratum["place"] == ""]
        wanted = validation_count(len(stratum), fraction)
        wanted -= int((stratum["place"] == "validation").sum())
        patients.loc[new, "place"] = "train"
        patients.loc[new[: max(wanted, 0)], "place"] = "validation"


def validation_count(patients: int, fraction: float) -> int:
    """Return how many patients of a stratum validate: the rounded share; of two or more, each
    side gets at least one.
    """
    share = math.floor(fraction * patients + 0.5)
    return min(max(share, 1), patients - 1) if patients >= 2 else share


def _deal_folds(patients: pd.DataFrame, folds: int) -> None:
    """Give each new patient the fold that is emptiest in its stratum, then emptiest of all."""
    total = Counter(patients.loc[patients["fold"] >= 0, "fold"])
    for _, stratum in patients.groupby(["group", "fracture"]):
        here = Counter(stratum.loc[stratum["fold"] >= 0, "fold"])
        for patient in stratum.index[stratum["fold"] < 0]:
            fold = min(range(folds), key=lambda f: (here[f], total[f], f))
            here[fold] += 1
            total[fold] += 1
            patients.loc[patient, "fold"] = fold


def _balance_training(images: pd.DataFrame) -> None:
    """Keep as many fractured as normal training images in each year of age, by lowest draw."""
    train = images[images["part"] == "train"].sort_values(["image_draw", "filestem"])
    labels = train.groupby(["year", "fracture_visible"])
    counts = labels.size().unstack(fill_value=0).reindex(columns=[True, False], fill_value=0)
    pairs = train["year"].map(counts.min(axis=1))
    surplus = train.index[labels.cumcount() >= pairs]
    leave_out(images, images.index.isin(surplus), BALANCED)
