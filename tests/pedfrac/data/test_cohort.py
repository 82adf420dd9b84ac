"""Each exclusion removes what it says, in order, and is counted."""

from pathlib import Path

import pandas as pd
import pytest

from pedfrac.config.data import CohortConfig
from pedfrac.data.cohort import load_cohort, make_cohort, save_cohort
from pedfrac.data.records import Records
from pedfrac.data.schema import BOX_TYPES, FLAGS, ISSUE_TYPES, TABLE_TYPES
from pedfrac.errors import PedfracError

ALL = {"exclude_metal": False}


def records(*images: dict[str, object]) -> Records:
    """Records of images that differ from a sound 7-year-old's only where told."""
    text = {name: "" for name, kind in TABLE_TYPES.items() if kind == "str"}
    plain = text | dict.fromkeys(FLAGS, False) | {"age": 7.0, "projection": 1}
    numbers = {"study_number": 1, "timehash": 1, "width": 0, "height": 0, "pixel_spacing": 0.144}
    rows = [
        plain | numbers | {"filestem": f"image{n:02d}", "patient_id": n} | image
        for n, image in enumerate(images)
    ]
    table = pd.DataFrame(rows)[list(TABLE_TYPES)].astype(TABLE_TYPES)
    empty = [pd.DataFrame(columns=list(t)).astype(t) for t in (BOX_TYPES, ISSUE_TYPES)]
    return Records(table, *empty)


MIXED = records(
    {"age": 25.0},
    {"metal": True, "fracture_visible": True},
    {"diagnosis_uncertain": True},
    {"cast": True, "fracture_visible": True},
    {"osteopenia": True},
    {"projection": 3},
    {"projection": 2, "fracture_visible": True, "patient_id": 5},
    {"cast": True, "metal": True},
)


def test_every_exclusion_is_a_step_in_order() -> None:
    config = CohortConfig(
        exclude_uncertain=True, exclude_cast=True, exclude_osteopenia=True, projections=(1, 2)
    )
    cohort = make_cohort(MIXED, config)
    assert [(step["step"], step["removed"], step["images"]) for step in cohort.steps] == [
        ("usable records", 0, 8),
        ("age within bounds", 1, 7),
        ("without metal", 2, 5),
        ("diagnosis certain", 1, 4),
        ("without cast", 1, 3),
        ("without osteopenia", 1, 2),
        ("projection 1, 2", 1, 1),
    ]
    assert cohort.table["filestem"].tolist() == ["image06"]
    assert list(cohort.table.columns) == list(TABLE_TYPES)


def test_only_configured_exclusions_are_steps() -> None:
    cohort = make_cohort(MIXED, CohortConfig(**ALL))
    assert [step["step"] for step in cohort.steps] == ["usable records", "age within bounds"]
    assert cohort.steps[-1] == {
        "step": "age within bounds",
        "removed": 1,
        "images": 7,
        "patients": 6,
        "fractured": 3,
        "normal": 4,
    }


def test_groups_are_right_open_and_the_last_bound_is_inclusive() -> None:
    images = [{"age": age} for age in (0.2, 1.5, 5.0, 10.0, 15.0, 19.0)]
    groups = make_cohort(records(*images), CohortConfig()).groups
    assert [group["after"]["images"] for group in groups] == [1, 1, 1, 1, 2]


def test_groups_are_counted_before_and_after_exclusions_even_where_empty() -> None:
    groups = make_cohort(MIXED, CohortConfig(age_bounds=(0, 5, 10))).groups
    assert groups[0]["before"] == {"images": 0, "patients": 0, "fractured": 0, "normal": 0}
    assert groups[1] == {
        "group": 1,
        "name": "5-10y",
        "from": 5.0,
        "to": 10.0,
        "before": {"images": 7, "patients": 6, "fractured": 3, "normal": 4},
        "after": {"images": 5, "patients": 4, "fractured": 2, "normal": 3},
    }


def test_an_empty_cohort_is_an_error_that_says_what_removed_the_images() -> None:
    images = records({"metal": True}, {"age": 24.0})
    with pytest.raises(PedfracError, match="2 usable records, age within bounds −1, without met"):
        make_cohort(images, CohortConfig())


def test_a_cohort_survives_saving_exactly(tmp_path: Path) -> None:
    cohort = make_cohort(MIXED, CohortConfig())
    save_cohort(cohort, tmp_path)
    loaded = load_cohort(tmp_path)
    pd.testing.assert_frame_equal(loaded.table, cohort.table)
    assert (loaded.steps, loaded.groups) == (cohort.steps, cohort.groups)
