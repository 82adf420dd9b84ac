"""The table of published metrics, and how it stands beside an evaluation."""

import json
import re

import pytest
from made_versions import make_version
from pydantic import ValidationError

from pedfrac.config.loading import load_config
from pedfrac.config.retrain import RetrainConfig
from pedfrac.errors import PedfracError
from pedfrac.evaluation.published import (
    OWN,
    PublishedMetric,
    PublishedValue,
    Reference,
    find_protocol,
    published_protocols,
    published_references,
    side_by_side,
    what_was_shared,
)
from pedfrac.evaluation.split_leakage import Leakage

CLEAN = Leakage(
    given={"train": 14_204, "validation": 4_094, "test": 2_029},
    kept={"train": 14_204, "validation": 4_094, "test": 2_029},
    patients=6_091,
    shared_patients=0,
    test_patients=610,
    leaking_patients=0,
    leaking_images=0,
    repeated_images=0,
)
LEAKY = Leakage(
    given={"train": 70, "validation": 20, "test": 10},
    kept={"train": 41, "validation": 13, "test": 10},
    patients=33,
    shared_patients=19,
    test_patients=9,
    leaking_patients=7,
    leaking_images=8,
    repeated_images=0,
)


# ---- the table --------------------------------------------------------------------------------


def test_every_reference_says_where_it_is_from_and_how_images_were_split():
    references = published_references()
    assert len(references) >= 20
    for one in references:
        assert Reference.model_validate_json(one.model_dump_json()) == one
    names = [(one.protocol, one.metric) for one in references]
    assert len(set(names)) == len(names)
    for one in references:
        assert one.source
        assert re.match("https://", one.url)
        assert one.population
        assert one.task
        assert one.split in ("by patient", "by image", "external", "mixed", "not stated")


def test_what_can_be_reproduced_says_how_to_get_its_split_and_fits_the_configuration():
    reproducible = [one for one in published_protocols() if one.split_file]
    assert "ruiyangju" in [one.name for one in reproducible]
    for one in reproducible:
        settings = [f"{name}={json.dumps(value)}" for name, value in one.settings.items()]
        assert isinstance(load_config(None, ["data.root=data", *settings]), RetrainConfig)
        assert one.parts is not None
        assert sum(one.parts.values()) == 20_327


def test_a_protocol_that_cannot_be_reproduced_is_refused():
    assert find_protocol("ruiyangju").name == "ruiyangju"
    with pytest.raises(PedfracError, match="split of zech2023 is not published.*--list"):
        find_protocol("zech2023")
    with pytest.raises(PedfracError, match="no protocol 'ruyang'; there are ruiyangju"):
        find_protocol("ruyang")


@pytest.mark.parametrize("bounds", [{"low": 0.8}, {"low": 0.95, "high": 0.97}])
def test_a_metric_outside_its_bounds_is_refused(bounds):
    told = {"name": "AUROC", "value": 0.9, "of": "images", "measured_on": "test images"}
    with pytest.raises(ValidationError, match="AUROC"):
        PublishedMetric.model_validate(told | bounds)


# ---- beside one's own -------------------------------------------------------------------------


def test_a_metric_stands_beside_the_one_that_means_the_same():
    protocol = next(one for one in published_protocols() if one.name == "zech2023")
    metrics = make_version().metrics
    rows = {(row.metric, row.of): row for row in side_by_side(protocol, metrics)}
    row = rows["sensitivity", "images"]
    assert row.published == PublishedValue(value=0.88, low=0.78, high=0.94)
    assert row.here == metrics.groups[0].models["bundle"].sensitivity
    alone = rows["sensitivity", "studies"]
    assert alone.published is None
    assert alone.here == metrics.studies.groups[0].models["bundle"].sensitivity != row.here
    assert len(rows) == 2 * len(OWN)


def test_metrics_of_boxes_stand_alone():
    protocol = find_protocol("ruiyangju")
    rows = side_by_side(protocol, make_version().metrics)
    assert all((row.published is None) != (row.here is None) for row in rows)
    assert [row.of for row in rows if row.published] == ["boxes"] * len(protocol.metrics)
    assert len(rows) == len(protocol.metrics) + 2 * len(OWN)


# ---- what is said -----------------------------------------------------------------------------


def test_a_split_without_leakage_is_said_to_have_none():
    said = " ".join(what_was_shared(find_protocol("ruiyangju"), CLEAN, scored=2_029))
    assert "No patient of the split given is in more than one part" in said
    for word in ("LEAKAGE", "not the published one", "in the cohort"):
        assert word not in said


def test_a_leaking_split_is_said_to_be_one_with_its_counts():
    said = " ".join(what_was_shared(find_protocol("ruiyangju"), LEAKY, scored=8))
    assert "LEAKAGE: in the split given 19 of 33 patients are in more than one part" in said
    assert "8 of 10 test images are of 7 patients who also train or validate" in said
    assert "the 29 training and 7 validation images of patients in a stricter part" in said
    assert "Metrics measured on it were obtained with that leakage" in said
    assert "8 of its 10 test images are in the cohort" in said
    assert "names train 70, validation 20, test 10 images" in said
    assert "published one train 14204, validation 4094, test 2029" in said


def test_published_metrics_are_said_to_leak_where_the_published_split_does():
    protocol = find_protocol("ruiyangju").model_copy(update={"parts": LEAKY.given})
    said = " ".join(what_was_shared(protocol, LEAKY, scored=10))
    assert "The published metrics were obtained with that leakage" in said
    assert "not the published one" not in said
