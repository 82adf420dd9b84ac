"""Age groups are right-open but for the last bound."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pedfrac.age_groups import AgeGroups

GROUPS = AgeGroups((0, 1.5, 5, 10, 15, 19))


def test_bounds_belong_to_the_older_group_and_the_last_is_inside():
    ages = [0, 1.4, 1.5, 5, 14.9, 15, 19, 19.1, -0.1, float("nan")]
    assert GROUPS.assign(ages).tolist() == [0, 0, 1, 2, 3, 4, 4, -1, -1, -1]


@given(st.floats(0, 19))
def test_an_age_lies_between_the_bounds_of_its_group(age):
    group = int(GROUPS.assign([age])[0])
    assert GROUPS.bounds[group] <= age <= GROUPS.bounds[group + 1]


def test_empty_input_gives_empty_output():
    assert GROUPS.assign(np.array([])).tolist() == []
