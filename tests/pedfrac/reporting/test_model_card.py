"""The model card holds the findings' metrics and tells what they do not."""

import copy
import re

import pytest
from made_findings import make_config, make_findings
from rendered import assert_whole, table

from pedfrac.reporting.caveats import FEW_PATIENTS
from pedfrac.reporting.model_card import write_model_card
from pedfrac.reporting.schema import Findings
from pedfrac.reporting.statements import environment

WRITTEN = environment({"config": {}}).filters["interval"]


@pytest.fixture(scope="module")
def found():
    plain = {"model": {"weights": "none"}}
    return make_findings(config=make_config(fracture=plain, age=plain), disturbed=True)


@pytest.fixture(scope="module")
def bare():
    """Findings without intervals, of test images of one kind, and nothing beside."""
    config = make_config(evaluation={"resamples": 0})
    return make_findings(300, config, fractured=True)


@pytest.fixture
def write(tmp_path):
    def write(findings):
        write_model_card(tmp_path / "new" / "model_card.md", findings)
        page = (tmp_path / "new" / "model_card.md").read_text(encoding="utf-8")
        assert_whole(page)
        return page

    return write


def changed(findings, **values):
    """Return findings with values set by path, such as ``config__pixels__markers``."""
    made = copy.deepcopy(findings)
    for path, value in values.items():
        *branches, leaf = path.split("__")
        place = made
        for branch in branches:
            place = place[branch]
        place[leaf] = value
    return Findings.model_validate(made).model_dump(mode="json")


def test_metrics_of_the_card_are_those_of_the_findings(found, write):
    page = write(found)
    names = ("auroc", "average_precision", "sensitivity", "specificity")
    for heading, rows in (
        ("Images, by age group", found["groups"]),
        ("Images, by cast and exam", found["subsets"]),
        ("Folds held out in turn", found["folds"]["groups"]),
    ):
        written = table(page, heading)[1:]
        assert len(written) == len(rows)
        for cells, row in zip(written, rows, strict=True):
            counts = [f"{row[name]:,}" for name in ("images", "patients", "fractured")]
            metrics = [WRITTEN(row["models"]["bundle"][name]) for name in names]
            baselines = [WRITTEN(area) for area in row["baselines"].values()]
            assert cells[1:] == counts + metrics + baselines
    calibrated = table(page, "Calibration")[1:]
    for cells, group in zip(calibrated, found["calibration"]["groups"], strict=True):
        metrics = ("observed_expected", "intercept", "slope", "brier")
        assert cells[1:] == [WRITTEN(group["after"][name]) for name in metrics]


def test_parts_and_subgroups_are_those_of_the_findings(found, write):
    page = write(found)
    counts = [list(map(int, row[1:])) for row in table(page, "Training data")[1:]]
    parts = found["split"]["parts"]
    assert counts == [
        [parts[part][name] for name in ("images", "patients", "fractured", "normal")]
        for part in ("train", "validation", "test", "left_out")
    ]
    subgroups = [one for one in found["subgroups"]["subgroups"] if one["images"]]
    rows = table(page, "Subgroups")[1:]
    assert [int(row[2]) for row in rows] == [one["images"] for one in subgroups]
    assert [row[5] for row in rows] == [WRITTEN(one["metrics"]["sensitivity"]) for one in subgroups]


def test_missing_metrics_stand_as_their_reasons(bare, write):
    page = write(bare)
    rows = {row[0]: row for row in table(page, "Images, by age group")[1:]}
    assert rows["all ages"][4] == "– (only fractured images)"
    assert rows["all ages"][7] == "– (no normal images)"
    assert "Not examined in this run: disturbed images, images without bones and other" in page
    assert "Disturbed images" not in page


def test_small_groups_and_generalists_are_named_as_limits(found, write):
    limits = write(found).split("## Limitations")[1]
    small = [row for row in found["groups"][1:] if row["patients"] < FEW_PATIENTS]
    assert small
    (told,) = re.findall(r"Tested on fewer than 30 patients: (.*)\. Read", limits)
    assert told.split(", ") == [
        f"{row['name'][:-1].replace('-', '–')} years ({row['patients']})" for row in small
    ]
    by_generalist = [one for one in found["selection"] if one["choice"] == "generalist"]
    assert limits.count("is scored by the generalist") == len(by_generalist) > 0


def test_a_poor_subset_is_out_of_scope_and_a_good_one_is_not(found, write):
    cast = next(row for row in found["subsets"] if row["name"] == "cast")
    rate = cast["models"]["bundle"]["specificity"]
    for low, wanted in ((0.4, True), (0.6, False)):
        rate |= {"value": 0.9, "low": low, "high": 0.95}
        cast["models"]["bundle"]["sensitivity"] |= {"value": 0.9, "low": 0.6, "high": 0.95}
        scope = write(found).split("Out of scope")[1].split("## Factors")[0]
        assert bool(re.search(r"[:;] cast;", scope)) is wanted


def test_a_subgroup_that_differs_is_told_with_its_p(found, write):
    assert "**differs**" not in write(found)
    made = copy.deepcopy(found)
    one = next(o for o in made["subgroups"]["subgroups"] if o["metrics"]["auroc"]["against"])
    one["metrics"]["auroc"]["differs"] = True
    one["metrics"]["auroc"]["against"] |= {"p_corrected": 0.0012, "others": 0.987}
    page = write(made)
    assert f"{one['attribute']}, {one['name']}: AUROC" in page
    assert "against 0.99 (corrected p 0.001)" in page
    assert "1 metric of a subgroup differs beyond chance" in page


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"config__fracture__model__weights": "hub"}, "CC BY-NC: **no commercial use**"),
        ({"config__fracture__model__weights": "w.safetensors"}, "licence the authors must state"),
        (
            {
                "config__fracture__model__weights": "hub",
                "config__fracture__model__backbone": "convnext_tiny",
            },
            "timm's pretrained weights: see there for their licence",
        ),
        ({"config__pixels__markers": "off"}, "burnt-in text are left as they are"),
        ({"config__cohort__exclude_metal": False}, "Left out: nothing else"),
        (
            {"config__split__folds": 5, "config__split__fold": 0},
            "dealt into 5 folds, of which fold 0 validates",
        ),
        ({"config__split__folds": 5}, "5 folds, each held out in turn from networks of its own."),
        ({"split__source": "file"}, "The parts of the data were given by a file."),
        ({"operating__rule": "sensitivity", "operating__sensitivity_target": 0.9}, "of 90 %"),
        ({"calibration__method": "none"}, "Probabilities are not calibrated."),
        ({"operating__abstention__rule": "coverage"}, "are left to a reader"),
        ({"config__evaluation__views": "mirrored"}, "over itself and its mirror image"),
        ({"config__fracture__training__imbalance": "focal"}, "focal loss, exponent 2"),
        ({"config__fracture__training__imbalance": "none"}, "Class imbalance: not corrected."),
        ({"config__age__head": "regression"}, "it learns the age in years"),
        ({"shortcuts__verdict": "suspected"}, "A shortcut is **suspected**"),
        ({"explanation": {}}, "No heat maps were made."),
        ({"records__issues": {"missing image": 3}}, "Faults found: missing image (3)."),
    ],
)
def test_the_card_says_what_the_configuration_did(found, write, values, told):
    assert told not in write(found)
    assert told in write(changed(found, **values))


def test_a_run_that_does_not_know_its_origin_has_a_card(found, write):
    assert "bundle/b1" in write(found)
    assert "bundle/b1" not in write(changed(found, provenance={}))


def test_facts_of_the_published_data_are_told_of_no_other(found, write):
    page = write(found)
    assert "GRAZPEDWRI" not in page
    assert "Source: *for the authors*" in page
    published = {"usable": 20327, "patients": 6091, "studies": 10699, "fractured": 13550}
    page = write(changed(found, **{f"records__{name}": n for name, n in published.items()}))
    assert "Source: GRAZPEDWRI-DX" in page
    page = write(changed(found, records__usable=20327, records__patients=6091))
    assert "GRAZPEDWRI" not in page


def test_names_of_images_cannot_break_a_table(found, write):
    made = copy.deepcopy(found)
    made["subgroups"]["subgroups"][0]["name"] = "a|b <script> [x](y)\n`c`"
    rows = table(write(made), "Subgroups")
    assert rows[1][1] == "a|b <script> [x](y) `c`"
