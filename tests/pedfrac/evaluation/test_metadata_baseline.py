"""The baseline learns from metadata, and from nothing else."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pedfrac.evaluation.metadata_baseline import CLINICAL, PLAIN, baseline_scores


def make_images(count, seed):
    random = np.random.default_rng(seed)
    images = pd.DataFrame(
        {
            "age": random.uniform(0.2, 19, count).round(1),
            "gender": random.choice(["M", "F", "O"], count),
            "projection": random.integers(1, 4, count),
            "laterality": random.choice(["L", "R"], count),
            "cast": random.random(count) < 0.3,
            "initial_exam": random.random(count) < 0.6,
            "osteopenia": random.random(count) < 0.1,
            "study_number": random.integers(1, 5, count),
        }
    )
    chance = 0.2 + 0.3 * (images["gender"] == "M") + 0.45 * images["cast"]
    return images.assign(fracture_visible=random.random(count) < chance)


def test_each_set_of_columns_predicts_what_it_can():
    train, test = make_images(1500, 0), make_images(1500, 1)
    truth = test["fracture_visible"]
    plain = roc_auc_score(truth, baseline_scores(train, test, clinical=False))
    clinical = roc_auc_score(truth, baseline_scores(train, test, clinical=True))
    assert 0.55 < plain < clinical - 0.1


@pytest.mark.parametrize("clinical", [False, True])
def test_only_the_named_columns_count(clinical):
    train, test = make_images(300, 0), make_images(100, 1)
    scores = baseline_scores(train, test, clinical=clinical)
    named = list(CLINICAL if clinical else PLAIN)
    blind = baseline_scores(
        train[[*named, "fracture_visible"]].assign(extra=1), test[named], clinical=clinical
    )
    assert (scores == blind).all()
    assert ((scores >= 0) & (scores <= 1)).all()


def test_a_handful_of_images_gives_chance():
    train, test = make_images(8, 3), make_images(20, 1)
    assert len(set(baseline_scores(train, test, clinical=True))) == 1
