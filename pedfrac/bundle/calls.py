"""Calls: from probabilities and thresholds to fractured, normal or left to a reader."""

import numpy as np
import pandas as pd

from pedfrac.bundle.bundle import Bundle

CALLS = ("fractured", "normal", "left to a reader")


def routed_calls(bundle: Bundle, scores: pd.DataFrame) -> pd.DataFrame:
    """Return what is made of scores (see ``Bundle.score``): columns of ``predict`` on the call.

    Each image is routed by its age where that is known, else by what the image shows.
    """
    names = np.array([*bundle.info.ages.names, ""])  # -1, no group, is the empty name
    known = (scores["group"] >= 0).to_numpy()
    used = np.where(known, scores["group"], scores["group_seen"])
    probability = np.where(known, scores["bundle"], scores["seen"])
    scorer = bundle.info.scorers["bundle"]
    low, high = scorer.bounds(used)
    return pd.DataFrame(
        {
            "age_group_recorded": names[scores["group"]],
            "age_group_seen": names[scores["group_seen"]],
            "age_group_used": names[used],
            "routed_by": np.where(known, "age", "image"),
            "probability": probability,
            "prevalence": np.nan if scorer.prevalence is None else scorer.prevalence,
            "threshold": np.array(scorer.thresholds)[used],
            "call": np.select([probability >= high, probability < low], CALLS[:2], CALLS[2]),
            "network": np.array(scorer.choices)[used],
            "generalist": scores["generalist"],
        },
        index=scores.index,
    )
