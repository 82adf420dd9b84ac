"""Studies: all films of one examination joined into one row, scored and called as one.

Not here: any figure. The rows look like films, so that whatever takes films takes studies.
"""

from typing import Literal

import numpy as np
import pandas as pd

from pedfrac.errors import PedfracError

Rule = Literal["max", "mean", "noisy-or"]
STUDY = ["patient_id", "study_number"]
TRUTH = "fracture_visible"
FLAGS = ("cast", "initial_exam", "osteopenia", "diagnosis_uncertain", "metal")
SCORE = r"^(bundle|specialist|generalist|seen)$"  # probabilities of a fracture
AGE = r"^age_\d+$"  # probabilities of the age groups


def to_studies(films: pd.DataFrame, rule: Rule = "max") -> pd.DataFrame:
    """Return one row per study, a pair of patient_id and study_number, with the films' columns.

    Each probability of a fracture is joined by the ``rule``. ``max``, the default, matches the
    truth, which is a fracture on any film: a fracture is often seen in one view only, and at a
    film's threshold a study is called exactly where one of its films is. ``mean`` gives way to
    views that hide it. ``noisy-or``, 1 - prod(1 - p), takes the films for independent witnesses,
    which two views of one wrist by one network are not. A threshold chosen on films calls too many
    studies under ``max``: choose it on validation studies.

    Age probabilities are averaged, and group_seen is the group of the highest. Flags hold where
    they hold for any film. Other columns hold what the films agree on, or else are missing; age
    and group are the first film's. filestem becomes ``patient_study``; ``images`` counts films.
    Raises PedfracError that names a film whose score is no probability.
    """
    _refuse_no_probability(films)
    studies = films.groupby(STUDY, sort=True)
    scores = list(films.filter(regex=SCORE).columns)
    ages = list(films.filter(regex=AGE).columns)
    flags = [name for name in (TRUTH, *FLAGS) if name in films]
    table = studies.first()
    mixed = studies.nunique(dropna=False) > 1
    others = table.columns.difference([*scores, *ages, *flags, "age", "group", "filestem"])
    for name in others:
        if mixed[name].any():
            table[name] = table[name].mask(mixed[name])
    table[flags] = studies[flags].any()
    table[scores] = _join(films[[*STUDY, *scores]], rule)
    if ages:
        table[ages] = studies[ages].mean()
        table["group_seen"] = table[ages].to_numpy().argmax(axis=1) if len(table) else []
    table["images"] = studies.size()
    table = table.reset_index()
    table["filestem"] = [
        f"{patient}_{study}" for patient, study in zip(*(table[key] for key in STUDY), strict=True)
    ]
    columns = list(dict.fromkeys([*films.columns, "images"]))
    return table[columns].astype(dict.fromkeys(flags, bool))


def _join(films: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    studies = films.groupby(STUDY, sort=True)
    if rule == "max":
        return studies.max()
    if rule == "mean":
        return studies.mean()
    scores = films.columns.difference(STUDY, sort=False)
    return 1 - (1 - films[scores]).groupby([films[key] for key in STUDY], sort=True).prod()


def _refuse_no_probability(films: pd.DataFrame) -> None:
    scores = films.filter(regex=SCORE)
    bad = ~scores.apply(lambda column: column.between(0, 1)).to_numpy(dtype=bool)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise PedfracError(
            f"film {films['filestem'].iloc[row]}: {scores.columns[column]} must be a probability "
            f"from 0 to 1, found {scores.to_numpy()[row, column]}"
        )
