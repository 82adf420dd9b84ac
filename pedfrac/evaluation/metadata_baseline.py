"""Baseline: what metadata alone predict, the honest companion of every AUROC.

Not here: pixels. A network that is no better than this has learnt who is X-rayed and why.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

PLAIN = ("age", "gender", "projection", "laterality")
CLINICAL = (*PLAIN, "cast", "initial_exam", "osteopenia", "study_number")
CODES = {"gender": {"M": 0, "F": 1, "O": 2}, "laterality": {"L": 0, "R": 1}}


def baseline_scores(
    train: pd.DataFrame, test: pd.DataFrame, *, clinical: bool
) -> NDArray[np.float64]:
    """Return the probability of a fracture of each test image (n,), learnt from the metadata.

    Both tables hold the columns of PLAIN, with ``clinical`` those of CLINICAL; ``train`` also
    ``fracture_visible``, with images of both kinds.
    """
    columns = list(CLINICAL if clinical else PLAIN)
    # No early stopping: it would hold out images, not patients. Small trees do not need it.
    model = HistGradientBoostingClassifier(
        learning_rate=0.05, max_leaf_nodes=15, early_stopping=False, random_state=0
    )
    model.fit(_features(train, columns), train["fracture_visible"].to_numpy(dtype=bool))
    scores: NDArray[np.float64] = model.predict_proba(_features(test, columns))[:, 1]
    return scores


def _features(table: pd.DataFrame, columns: list[str]) -> NDArray[np.float64]:
    """Return the columns as numbers (n, k); NaN, which the model knows, for an unknown code."""
    coded = {name: table[name].map(CODES[name]) for name in columns if name in CODES}
    return table[columns].assign(**coded).to_numpy(dtype=np.float64)
