"""Bones are hidden and nothing else, and what tells without them is found out."""

import json

import numpy as np
import pytest

from pedfrac.config.evaluation import EvaluationConfig
from pedfrac.evaluation.shortcuts import (
    MARKER_GROWTH,
    Shortcuts,
    hide_bones,
    keep_markers,
    shortcut_metrics,
    verdict,
    wrist_region,
)
from pedfrac.statistics.intervals import Interval

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
SIZE = 96
WINDOW = (slice(None), slice(20, 76))
ARM = (slice(None), slice(38, 60))
BONE = (slice(30, 60), slice(46, 52))
MARKER = (24.0, 8.0, 32.0, 16.0)


def image(seed: int = 0, bone: int = 190, marker: int = 40, rim: int = 40):
    """A letterboxed image: grainy air, an arm with a bone in it, a marker's region, a rim."""
    rng = np.random.default_rng(seed)
    made = np.zeros((SIZE, SIZE), float)
    made[WINDOW] = 40
    made[ARM] = 110
    made[BONE] = bone
    made[8:16, 24:32] = marker
    made[:, 20:22] = rim
    made[WINDOW] += rng.normal(0, 4, made[WINDOW].shape)
    return made.round().clip(0, 255).astype(np.uint8)


def test_the_region_is_the_arm_and_a_little_more():
    region, found = wrist_region(image(rim=220))
    assert found
    assert region[ARM].all()
    assert region.sum() < 1.5 * region[ARM].size
    assert not region[:, :22].any()  # the bright rim is no wrist


def test_hidden_bones_leave_all_else_as_it_is():
    before = image()
    after, _ = hide_bones(before)
    region, _ = wrist_region(before)
    np.testing.assert_array_equal(after[~region], before[~region])
    assert len(np.unique(after[region])) == 1
    assert after[region][0] == pytest.approx(40, abs=2)
    other, _ = hide_bones(image(bone=130))
    np.testing.assert_array_equal(after, other)


def test_only_the_marker_region_is_kept_and_not_the_bars():
    before = image(marker=90)
    after = keep_markers(before, [MARKER])
    x1, y1, x2, y2 = (int(corner) for corner in MARKER)
    np.testing.assert_array_equal(after[y1:y2, x1:x2], before[y1:y2, x1:x2])
    margin = int(np.ceil(MARKER_GROWTH * SIZE))
    elsewhere = np.ones(after.shape, bool)
    elsewhere[y1 - margin : y2 + margin, x1 - margin : x2 + margin] = False
    assert len(np.unique(after[elsewhere])) == 1
    assert len(np.unique(keep_markers(before, []))) == 1


@pytest.mark.parametrize(
    "made",
    [np.full((SIZE, SIZE), 90, np.uint8), np.eye(SIZE, dtype=np.uint8) * 200],
    ids=["even", "a thin line"],
)
def test_where_no_wrist_is_found_the_middle_is_hidden(made):
    region, found = wrist_region(made)
    assert not found
    assert region[SIZE // 2, SIZE // 2] and not region[0, 0]
    assert region.mean() == pytest.approx(0.49, abs=0.03)


def test_a_black_image_has_nothing_to_hide():
    black = np.zeros((SIZE, SIZE), np.uint8)
    assert not wrist_region(black)[0].any()
    np.testing.assert_array_equal(hide_bones(black)[0], black)
    np.testing.assert_array_equal(keep_markers(black, [MARKER]), black)


def brightness_of(place):
    return lambda images: images[(slice(None), *place)].mean(axis=(1, 2)) / 255


def images(n: int = 40, **told):
    """Images whose label is told by one part: its grey in normal images, in fractured ones."""
    truth = np.arange(n) % 2 == 0
    values = [{name: pair[int(label)] for name, pair in told.items()} for label in truth]
    return np.stack([image(seed, **value) for seed, value in enumerate(values)]), truth


def metrics_of(place, **told):
    made, truth = images(**told)
    boxes = [np.array([MARKER])] * len(made)
    return shortcut_metrics(
        brightness_of(place), made, boxes, truth, np.arange(len(made)), EvaluationConfig()
    )


def test_a_label_in_the_bone_is_no_shortcut():
    metrics = metrics_of(BONE, bone=(180, 220))
    assert Shortcuts.model_validate(json.loads(metrics.model_dump_json())) == metrics
    for row in metrics.parts.values():
        assert row.auroc.low <= 0.5
        assert (row.images, row.verdict) == (40, "not shown")
    assert metrics.bones_hidden.region_found == 40
    assert metrics.verdict == "not shown"


def test_a_label_in_the_border_is_suspected_with_bones_hidden():
    metrics = metrics_of((slice(None), slice(20, 22)), rim=(60, 80))
    assert metrics.bones_hidden.auroc.low > 0.5
    assert metrics.bones_hidden.verdict == "suspected"
    assert metrics.marker_region_only.verdict == "not shown"
    assert metrics.verdict == "suspected"


def test_a_label_left_in_the_marker_region_is_suspected_in_both():
    metrics = metrics_of((slice(8, 16), slice(24, 32)), marker=(45, 60))
    assert metrics.marker_region_only.with_region == 40
    assert metrics.bones_hidden.verdict == "suspected"
    assert metrics.marker_region_only.verdict == "suspected"


@pytest.mark.parametrize(("n", "reason"), [(0, "no images"), (1, "only fractured images")])
def test_few_images_are_unknown_for_a_stated_reason(n, reason):
    made, truth = images(n) if n else (np.empty((0, SIZE, SIZE), np.uint8), np.empty(0, bool))
    metrics = shortcut_metrics(
        brightness_of(BONE), made, [[]] * n, truth, np.arange(n), EvaluationConfig()
    )
    assert metrics.verdict == metrics.bones_hidden.verdict == "unknown"
    assert metrics.marker_region_only.reason == reason
    assert metrics.marker_region_only.with_region == 0


def test_the_rule_is_the_whole_interval_above_one_half():
    assert verdict(Interval(value=0.7, low=0.51, high=0.8)) == "suspected"
    assert verdict(Interval(value=0.9, low=0.5, high=1.0)) == "not shown"
    assert verdict(Interval(value=0.2, low=0.1, high=0.3)) == "not shown"
