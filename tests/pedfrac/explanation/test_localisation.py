"""Localisation has known answers, and a map must beat a prior that has seen no image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pedfrac.explanation.localisation import centre_maps, join, localisation, localisation_metrics
from pedfrac.statistics.patient_bootstrap import PatientBootstrap


def test_localisation_known_answers():
    heat = np.zeros((4, 10, 10), np.float32)
    heat[0, 2, 3], heat[0, 8, 8] = 1, 0.25  # peak in the first of two boxes
    heat[1, 8, 8], heat[1, 2, 3] = 1, 0.25
    heat[3] = 0.5  # flat
    boxes = np.array([[2, 1, 5, 4], [4, 1, 6, 4]], np.float32)  # 3x3 and 2x3, of which 3 shared
    found = localisation(heat, [boxes, boxes, np.empty((0, 4)), boxes])
    assert found.image.tolist() == [0, 1, 3]
    assert found.pointing.tolist() == [True, False, False]
    np.testing.assert_allclose(found.energy, [0.8, 0.2, 0.12])
    np.testing.assert_allclose(found.chance, 0.12)
    np.testing.assert_allclose(found.iou, [1 / 12, 0, 0.12])


def test_area_counts_the_image_only_and_mass_all_heat():
    heat = np.ones((1, 10, 10), np.float32)
    heat[0, 0, 0] = 2  # beside the image
    found = localisation(heat, [np.array([[4, 0, 10, 5]])], [(2, 0, 7, 10)])
    assert found.pointing.tolist() == [False]
    np.testing.assert_allclose(found.chance, 15 / 50)
    np.testing.assert_allclose(found.energy, 15 / 101)


def test_images_without_boxes_have_no_localisation():
    found = localisation(np.ones((2, 4, 4), np.float32), [np.empty((0, 4))] * 2)
    assert [len(part) for part in vars(found).values()] == [0] * 5


corner = st.floats(-3, 15, width=32)
box = st.tuples(corner, corner, corner, corner).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
heats = arrays(np.float32, (1, 12, 12), elements=st.sampled_from([0, 0.125, 0.5, 1]))


@given(heats, st.lists(box, min_size=1, max_size=4), box)
def test_localisation_properties(heat, boxes, another):
    def meet(heat, boxes):
        found = localisation(heat, [np.array(boxes)])
        return found.pointing[0], found.energy[0], found.chance[0]

    hit, mass, area = meet(heat, boxes)
    assert 0 <= mass <= 1 + 1e-9
    assert 0 <= area <= 1
    assert meet(heat, boxes[::-1] + boxes) == (hit, mass, area)
    np.testing.assert_allclose(meet(heat / 4, boxes), (hit, mass, area))
    more = meet(heat, [*boxes, another])
    assert more[0] >= hit
    assert more[1] >= mass - 1e-9
    assert more[2] >= area
    flat = heat.max() == heat.min()
    assert meet(heat, [(0, 0, 12, 12)]) == (not flat, 1, 1)


def test_iou_is_of_the_pixels_from_a_share_of_the_maximum_on():
    heat = np.zeros((1, 10, 10), np.float32)
    heat[0, 2:6, 2:6] = 2
    heat[0, 2:6, 6] = 0.8  # 0.4 of the maximum
    boxes = [np.array([[4, 2, 8, 6], [4, 2, 5, 3]])]  # 4 x 4, and one within it
    assert localisation(heat, boxes).iou == pytest.approx(8 / 24)
    assert localisation(heat, boxes, marked=0.4).iou == pytest.approx(12 / 24)
    assert localisation(heat, boxes, marked=0.41).iou == pytest.approx(8 / 24)
    # Heat beside the image counts against the map, a box there is cut off.
    assert localisation(heat, boxes, [(0, 0, 6, 10)]).iou == pytest.approx(8 / 16)
    heat[0, 0, 0] = 2
    assert localisation(heat, boxes, [(1, 0, 6, 10)]).iou == pytest.approx(8 / 17)


def test_the_centre_prior_lies_in_the_middle_of_the_image_and_keeps_its_aspect():
    prior = centre_maps(np.empty((1, 40, 40), np.float32), [(10, 0, 30, 40)])[0]
    assert not prior[:, :10].any() and not prior[:, 30:].any()
    np.testing.assert_allclose(prior, prior[::-1, ::-1], atol=1e-6)
    at = np.unravel_index(prior.argmax(), prior.shape)
    assert at in {(y, x) for y in (19, 20) for x in (19, 20)}
    # One standard deviation is a quarter of the image's side, either way.
    assert prior[19, 24] / prior[19, 19] == pytest.approx(np.exp(-(4.5**2 - 0.5**2) / 2 / 25))
    assert prior[29, 19] / prior[19, 19] == pytest.approx(np.exp(-(9.5**2 - 0.5**2) / 2 / 100))


def metrics_of(maps, boxes):
    found, centre = (localisation(heat, boxes) for heat in (maps, centre_maps(maps)))
    return localisation_metrics(found, centre, PatientBootstrap(np.arange(len(maps)), 0, 0))


def test_the_centre_prior_as_a_map_beats_chance_but_not_itself():
    rng = np.random.default_rng(0)
    corners = rng.normal(16, 3, (40, 2)).round()
    boxes = [np.array([[x - 4, y - 4, x + 4, y + 4]]) for x, y in corners]
    maps = centre_maps(np.empty((40, 32, 32), np.float32))
    for _, found in metrics_of(maps, boxes):
        assert found.beats_chance
        assert found.beats_centre_prior is False
        assert found.map_minus_centre_prior.value == 0
        assert found.map == found.centre_prior


def test_a_map_on_the_boxes_beats_both():
    rng = np.random.default_rng(0)
    boxes, maps = [], np.zeros((12, 32, 32), np.float32)
    for heat, (x, y) in zip(maps, rng.integers(0, 26, (12, 2)), strict=True):
        boxes.append(np.array([[x, y, x + 6, y + 6]]))
        heat[y : y + 5, x : x + 6] = 1
    for name, found in metrics_of(maps, boxes):
        assert found.beats_chance and found.beats_centre_prior
        assert found.map.value == pytest.approx(5 / 6 if name == "iou" else 1)


def test_parts_are_joined_in_order():
    maps = np.ones((3, 4, 4), np.float32)
    boxes = [np.array([[0, 0, size, size]]) for size in (1, 2, 3)]
    parts = [localisation(maps[:2], boxes[:2]), localisation(maps[2:], boxes[2:])]
    np.testing.assert_allclose(join(parts).chance, np.array([1, 4, 9]) / 16)
