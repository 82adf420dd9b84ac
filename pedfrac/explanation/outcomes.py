"""Verdicts: which images a network judged rightly and wrongly, and which of them to look at first.

Not here: probabilities and thresholds (the evaluation makes them).
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pedfrac.packs.pack import Pack

# What each verdict is called in words, its colour (Okabe and Ito's), and which images come first:
# errors worst first, that is those the model was surest of.
VERDICTS = {
    "hit": ("hit: a fracture, found", "#007a5a", "highest probability first"),
    "miss": ("miss: a fracture, not found", "#b84a00", "lowest probability (worst) first"),
    "false-alarm": ("false alarm: no fracture", "#a3347a", "highest probability (worst) first"),
    "correct-rejection": ("correct rejection: no fracture", "#005f99", "lowest probability first"),
}


def image_table(
    pack: Pack,
    rows: NDArray[np.int64],
    truth: NDArray[np.bool_],
    probability: NDArray[np.float64],
    threshold: float,
) -> pd.DataFrame:
    """Return filestem, patient_id, age, size, row, truth, probability and verdict of images (n,).

    ``rows`` of the pack; an image is called fractured from the threshold on.
    """
    called = np.asarray(probability) >= threshold
    fractured = np.asarray(truth, bool)
    verdicts = np.where(
        fractured,
        np.where(called, "hit", "miss"),
        np.where(called, "false-alarm", "correct-rejection"),
    )
    columns = ["filestem", "patient_id", "age", "width", "height"]
    table = pack.index[columns].iloc[rows].reset_index(drop=True)
    return table.assign(row=rows, truth=fractured, probability=probability, verdict=verdicts)


def ranked(table: pd.DataFrame, verdict: str) -> list[int]:
    """Return the places of the images of a verdict, those the model was surest of first."""
    some = table[table["verdict"] == verdict]
    lowest_first = VERDICTS[verdict][2].startswith("lowest")
    order = some.sort_values(["probability", "filestem"], ascending=[lowest_first, True])
    return [int(at) for at in order.index]


def choose(table: pd.DataFrame, most: int) -> list[int]:
    """Return the places of the images to show: errors of both kinds in turn, hits, the rest."""
    errors = [
        (turn, at)
        for verdict in ("miss", "false-alarm")
        for turn, at in enumerate(ranked(table, verdict))
    ]
    in_turn = [at for _, at in sorted(errors, key=lambda error: error[0])]
    right = ranked(table, "hit") + ranked(table, "correct-rejection")
    return (in_turn + right)[:most]
