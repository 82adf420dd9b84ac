"""Studies: all images of one examination joined into one row, scored and called as one.

Not here: any metric. The rows look like images, so that whatever takes images takes studies.
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


def to_studies(images: pd.DataFrame, rule: Rule = "max") -> pd.DataFrame:
    """Return one row per study, a pair of patient_id and study_number, with the images' columns.

    Each probability of a fracture is joined by the ``rule``. ``max``, the default, matches the
    truth, which is a fracture on any image: a fracture is often seen in one view only, and at a
    image's threshold a study is called exactly where one of its images is. ``mean`` gives way to
    views that hide it. ``noisy-or``, 1 - prod(1 - p), takes the images for independent witnesses,
    which two views of one wrist by one network are not. A threshold chosen on images calls too many
    studies under ``max``: choose it on validation studies.

    Age probabilities are averaged, and group_seen is the group of the highest. Flags hold where
    they hold for any image. Other columns hold what the images agree on, or else are missing; age
    and group are the first image's. filestem becomes ``patient_study``; ``images`` counts images.
    Raises PedfracError that names an image whose score is no probability.
    """
    _refuse_no_probability(images)
    studies = images.groupby(STUDY, sort=True)
    scores = list(images.filter(regex=SCORE).columns)
    ages = list(images.filter(regex=AGE).columns)
    flags = [name for name in (TRUTH, *FLAGS) if name in images]
    table = studies.first()
    mixed = studies.nunique(dropna=False) > 1
    others = table.columns.difference([*scores, *ages, *flags, "age", "group", "filestem"])
    for name in others:
        if mixed[name].any():
            table[name] = table[name].mask(mixed[name])
    table[flags] = studies[flags].any()
    table[scores] = _join(images[[*STUDY, *scores]], rule)
    if ages:
        table[ages] = studies[ages].mean()
        table["group_seen"] = table[ages].to_numpy().argmax(axis=1) if len(table) else []
    table["images"] = studies.size()
    table = table.reset_index()
    table["filestem"] = [
        f"{patient}_{study}" for patient, study in zip(*(table[key] for key in STUDY), strict=True)
    ]
    columns = list(dict.fromkeys([*images.columns, "images"]))
    return table[columns].astype(dict.fromkeys(flags, bool))


def _join(images: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    studies = images.groupby(STUDY, sort=True)
    if rule == "max":
        return studies.max()
    if rule == "mean":
        return studies.mean()
    scores = images.columns.difference(STUDY, sort=False)
    return 1 - (1 - images[scores]).groupby([images[key] for key in STUDY], sort=True).prod()


def _refuse_no_probability(images: pd.DataFrame) -> None:
    scores = images.filter(regex=SCORE)
    bad = ~scores.apply(lambda column: column.between(0, 1)).to_numpy(dtype=bool)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise PedfracError(
            f"image {images['filestem'].iloc[row]}: {scores.columns[column]} must be a probability "
            f"from 0 to 1, found {scores.to_numpy()[row, column]}"
        )
