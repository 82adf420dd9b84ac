"""The fixed test set: fractured and normal images drawn per year of age."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from pedfrac.config.data import SplitConfig
from pedfrac.data.split import TEST_PATIENT


def leave_out(images: pd.DataFrame, which: pd.Series | np.ndarray, reason: str) -> None:
    """Mark images as not used, with the reason."""
    images.loc[which, "part"] = "left_out"
    images.loc[which, "reason"] = reason


# ---- the test set -----------------------------------------------------------------------------
def draw_test_set(images: pd.DataFrame, config: SplitConfig) -> dict[str, Any]:
    """Fill each year of age with pairs of a fractured and a normal image, youngest year first."""
    per_patient = Counter(images.loc[images["part"] == "test", "patient_id"])
    fresh = images[(images["place"] == "") & (images["part"] == "")]
    years = dict(iter(fresh.groupby("year")))
    kept = images[images["part"] == "test"].groupby(["year", "fracture_visible"]).size().to_dict()
    chosen: list[int] = []
    unfilled = []
    for year in sorted(images["year"].unique()):
        have = {label: int(kept.get((year, label), 0)) for label in (True, False)}
        pools = _pools(years.get(year, fresh.iloc[:0]), per_patient, config)
        available = {label: len(set(pool["patient_id"])) for label, pool in pools.items()}
        drawn = _fill_year(pools, have, available, per_patient, config)
        chosen.extend(drawn)
        if min(have.values()) < config.test_per_year:
            unfilled.append(_unfilled(int(year), have, available, config))
    images.loc[chosen, "part"] = "test"
    testing = images["patient_id"].isin(images.loc[chosen, "patient_id"])
    images.loc[testing, "place"] = "test"
    leave_out(images, testing & (images["part"] == ""), TEST_PATIENT)
    return {"pairs_wanted": config.test_per_year, "unfilled": unfilled}


def _unfilled(
    year: int, have: dict[bool, int], available: dict[bool, int], config: SplitConfig
) -> dict[str, Any]:
    """Describe a year short of pairs; available counts the patients that were still free for it."""
    return {
        "from": year,
        "to": year + 1,
        "pairs_wanted": config.test_per_year,
        "pairs": min(have.values()),
        "fractured": have[True],
        "normal": have[False],
        "available_fractured_patients": available[True],
        "available_normal_patients": available[False],
    }


def _pools(
    rows: pd.DataFrame, per_patient: Counter[int], config: SplitConfig
) -> dict[bool, pd.DataFrame]:
    """Return the free images of one year by label, in the order in which they are drawn."""
    full = [p for p, count in per_patient.items() if count >= config.test_images_per_patient]
    rows = rows[~rows["patient_id"].isin(full)].sort_values("image_draw")
    # Every patient's first image before anyone's second: more patients in the test set.
    turn = rows.groupby(["patient_id", "fracture_visible"]).cumcount()
    rows = rows.assign(turn=turn).sort_values(["turn", "test_draw", "image_draw"])
    return {label: rows[rows["fracture_visible"] == label] for label in (True, False)}


def _fill_year(
    pools: dict[bool, pd.DataFrame],
    have: dict[bool, int],
    available: dict[bool, int],
    per_patient: Counter[int],
    config: SplitConfig,
) -> list[int]:
    """Draw images of one year until it is full or no pair is left; count them in have, per_patient.

    The scarcer label draws first, so that a patient with both kinds of image goes where the need
    is. Where earlier images have vanished, single images first make the old pairs whole.
    """
    queues = {
        label: iter(list(zip(pool.index, pool["patient_id"], strict=True)))
        for label, pool in pools.items()
    }
    scarce = available[True] <= available[False]
    drawn: list[int] = []

    def take(label: bool) -> int | None:
        for image, patient in queues[label]:
            if per_patient[patient] < config.test_images_per_patient:
                per_patient[patient] += 1
                have[label] += 1
                drawn.append(image)
                return patient
        return None

    while have[True] != have[False] and min(have.values()) < config.test_per_year:
        if take(have[True] < have[False]) is None:
            return drawn
    while max(have.values()) < config.test_per_year:
        first = take(scarce)
        if first is None:
            break
        if take(not scarce) is None:
            per_patient[first] -= 1
            have[scarce] -= 1
            drawn.pop()
            break
    return drawn
