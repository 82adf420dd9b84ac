"""The short form of a retraining: what it changes, and what it refuses."""

import pytest

from pedfrac.config.changes import FIELDS, Changes
from pedfrac.config.retrain import RetrainConfig
from pedfrac.errors import PedfracError

CONFIG = RetrainConfig.model_validate({"data": {"root": "/a"}, "cohort": {"exclude_cast": True}})


def test_every_field_of_the_form_has_its_place():
    assert FIELDS.keys() == Changes.model_fields.keys() - {"more"}


def test_an_empty_form_changes_nothing():
    assert Changes().applied(CONFIG) is CONFIG


def test_fields_count_before_the_yaml_and_both_before_the_settings():
    more = "fracture: {training: {epochs: 9, seed: 4}}"
    made = Changes(age_bounds="0,9,19", epochs=3, more=more).applied(CONFIG)
    assert (made.fracture.training.epochs, made.fracture.training.seed) == (3, 4)
    assert made.cohort.age_bounds == (0, 9, 19) and made.cohort.exclude_cast


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="more"):
        Changes(more="a: [")
    with pytest.raises(PedfracError, match="cohort.bounds: there is no such field"):
        Changes(more="cohort: {bounds: 3}").applied(CONFIG)
