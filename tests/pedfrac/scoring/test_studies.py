"""Studies against a loop over their images."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pedfrac.errors import PedfracError
from pedfrac.scoring.studies import to_studies
from pedfrac.statistics.classification import auroc
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

pytestmark = pytest.mark.filterwarnings("error")

JOIN = {"max": np.max, "mean": np.mean, "noisy-or": lambda p: 1 - np.prod(1 - p)}


def draw_images(seed, count):
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "filestem": [f"image {number}" for number in range(count)],
            "patient_id": random.integers(0, 5, count),
            "study_number": random.integers(1, 3, count),
            "age": 7.0,
            "group": 2,
            "projection": random.integers(1, 3, count),
            "gender": "F",
            "cast": random.random(count) < 0.3,
            "fracture_visible": random.random(count) < 0.4,
            "generalist": random.random(count),
            "bundle": random.random(count),
            "age_0": random.random(count),
            "age_1": random.random(count),
            "group_seen": 0,
        },
        index=random.permutation(count),
    )


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 20), st.sampled_from(list(JOIN)))
def test_studies_are_their_images_joined(seed, count, rule):
    images = draw_images(seed, count)
    studies = to_studies(images, rule)
    assert list(studies.columns) == [*images.columns, "images"]
    assert studies["images"].sum() == count
    for study in studies.itertuples():
        own = images[
            (images["patient_id"] == study.patient_id)
            & (images["study_number"] == study.study_number)
        ]
        assert study.images == len(own)
        assert study.fracture_visible == own["fracture_visible"].any()
        assert study.cast == own["cast"].any()
        for score in ("generalist", "bundle"):
            assert getattr(study, score) == pytest.approx(JOIN[rule](own[score].to_numpy()))
        assert study.group_seen == int(own["age_1"].mean() > own["age_0"].mean())
        views = own["projection"].unique()
        assert np.isnan(study.projection) if len(views) > 1 else study.projection == views[0]
        assert (study.gender, study.group, study.age) == ("F", 2, 7.0)


def test_a_study_of_one_image_is_that_image():
    images = draw_images(0, 1)
    for rule in JOIN:
        study = to_studies(images, rule)
        assert study["generalist"].tolist() == pytest.approx(images["generalist"].tolist())
        assert study["projection"].tolist() == images["projection"].tolist()


def test_no_images_are_no_studies():
    studies = to_studies(draw_images(0, 3).iloc[:0])
    assert len(studies) == 0
    assert {"images", "fracture_visible", "group_seen"} <= set(studies.columns)


def test_metrics_of_images_are_metrics_of_studies():
    images = draw_images(1, 60).assign(patient_id=np.arange(60) // 2, study_number=1)
    studies = to_studies(images)
    truth, scores = studies["fracture_visible"], studies["generalist"]
    found = PatientBootstrap(studies["patient_id"], 0, 0).auroc_interval(truth, scores)
    wanted = images.groupby("patient_id")[["fracture_visible", "generalist"]].max()
    assert found.value == pytest.approx(
        auroc(wanted["fracture_visible"].astype(bool), wanted["generalist"])
    )
    assert found.low < found.value < found.high


@pytest.mark.parametrize("score", [np.nan, 1.2, -0.1])
def test_a_score_that_is_no_probability_is_named(score):
    images = draw_images(2, 4)
    images.iloc[2, images.columns.get_loc("bundle")] = score
    with pytest.raises(PedfracError, match=rf"image 2: bundle must be .* found {score}"):
        to_studies(images)
