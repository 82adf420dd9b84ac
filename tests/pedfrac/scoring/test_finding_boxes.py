"""Boxes of a map: where it stands out, in pixels, best first, and never beside the image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pedfrac.scoring.finding_boxes import FLOOR, MOST, boxes_of_map

SIZE = (128, 128)  # of maps of 16 × 16 cells


def bumps(*places):
    heat = np.full((16, 16), 0.01, np.float32)
    for row, column, high in places:
        heat[row : row + 2, column : column + 3] = high
    return heat


def test_each_place_becomes_a_box_around_it():
    first, second = boxes_of_map(bumps((2, 3, 0.6), (10, 9, 0.9)), SIZE)
    assert first.score == pytest.approx(0.9)
    assert second.score == pytest.approx(0.6)
    # cells are 8 pixels; edges lie where the map falls to half
    assert np.allclose(first.corners, (72, 80, 96, 96), atol=4)
    assert np.allclose(second.corners, (24, 16, 48, 32), atol=4)


def test_an_even_map_below_the_floor_has_no_box():
    assert boxes_of_map(np.full((8, 8), FLOOR / 2, np.float32), SIZE) == []


def test_what_lies_beside_the_image_is_no_finding():
    heat = bumps((2, 0, 0.9), (10, 9, 0.5))
    (only,) = boxes_of_map(heat, SIZE, (32, 0, 96, 128))
    assert only.score == pytest.approx(0.5)
    assert only.x1 >= 32


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(2, 20), columns=st.integers(2, 20))
def test_boxes_lie_on_the_image_and_come_best_first(seed, rows, columns):
    heat = np.random.default_rng(seed).random((rows, columns), np.float32)
    found = boxes_of_map(heat, SIZE)
    assert 1 <= len(found) <= MOST
    assert found[0].score <= heat.max() + 1e-6
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        assert 0 <= one.x1 < one.x2 <= SIZE[1]
        assert 0 <= one.y1 < one.y2 <= SIZE[0]
