"""Detection metrics: what they say of perfect, blind and mixed marks."""

import numpy as np
import pytest

from pedfrac.explanation.detection import detection_metrics
from pedfrac.scoring.finding_boxes import FindingBox
from pedfrac.statistics.patient_bootstrap import PatientBootstrap

BOX = (10, 10, 20, 20)
NONE = np.empty((0, 4))


def mark(x1, y1, x2, y2, score=0.9):
    return FindingBox(x1, y1, x2, y2, score)


def metrics(marks, truths):
    bootstrap = PatientBootstrap(np.arange(len(marks)), 200, 0)
    return detection_metrics(marks, truths, np.full(len(marks), 0.1), bootstrap)


def value(found, *path):
    tree = found.model_dump()
    for name in path:
        tree = tree[name]
    return tree["value"]


def test_marks_that_are_the_marked_fractures_are_perfect():
    found = metrics([[mark(*BOX)], []] * 10, [np.array([BOX]), NONE] * 10)
    for path in (("froc", "0.1"), ("froc", "0.5"), ("average_precision", "0.5")):
        assert value(found, *path) == 1
    assert value(found, "pointing", "marks") == 1
    assert value(found, "pointing", "chance") == pytest.approx(0.1)


def test_marks_elsewhere_find_nothing():
    found = metrics([[mark(40, 40, 50, 50)], []] * 10, [np.array([BOX]), NONE] * 10)
    assert value(found, "froc", "0.5") == value(found, "average_precision", "0.3") == 0
    assert value(found, "pointing", "marks") == 0


def test_false_marks_are_allowed_up_to_so_many_an_image():
    # of ten images, five are fractured; what is sure is wrong on the others
    wrong, right = mark(40, 40, 50, 50, 0.8), mark(*BOX, 0.5)
    found = metrics([[right], [wrong]] * 5, [np.array([BOX]), NONE] * 5)
    assert value(found, "froc", "0.1") == 0
    assert value(found, "froc", "0.5") == 1
    # five wrong ones first: precision is 5 of 10 once all are found
    assert value(found, "average_precision", "0.5") == pytest.approx(0.5)


def test_a_second_mark_of_one_fracture_is_wrong_and_a_loose_box_counts_less():
    twice = [mark(*BOX, 0.9), mark(*BOX, 0.8)]
    two = np.array([BOX, (60, 60, 70, 70)])
    found = metrics([twice] * 6, [two] * 6)
    assert value(found, "average_precision", "0.5") == pytest.approx(0.5)
    assert value(found, "froc", "0.5") == 0.5
    loose = metrics([[mark(10, 10, 20, 35)]] * 6, [np.array([BOX])] * 6)
    assert value(loose, "average_precision", "0.3") == 1  # they share 0.4 of their union
    assert value(loose, "average_precision", "0.5") == 0


def test_without_a_marked_fracture_there_is_a_reason():
    assert "no image" in metrics([[mark(*BOX)]], [NONE]).reason
