"""Findings: boxes move with their image, and teach the cells they lie on."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pedfrac.config.data import Preparation
from pedfrac.config.training import AugmentConfig, MapsConfig, MapShape, ModelConfig
from pedfrac.data.schema import CLASSES
from pedfrac.models.classifier import build_model
from pedfrac.models.inputs import to_images
from pedfrac.packs.pack import BOX_TYPES, Pack
from pedfrac.training.augmentation import augment
from pedfrac.training.checkpoint import MODEL, load_weights
from pedfrac.training.findings import cell_targets, find_boxes, find_classes, map_loss
from pedfrac.training.trainer import seed_weights, train
from tests.support import toy_training as toy

SIZE = 64
STILL = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
MOVES_ONLY = dict.fromkeys(("brightness", "contrast", "gamma", "noise", "erasing"), 0)


def boxes(*found) -> torch.Tensor:
    """Boxes of one image in pixels of SIZE, as (place of the class, corners)."""
    rows = [(kind, *(2 * side / SIZE - 1 for side in corners)) for kind, *corners in found]
    return torch.tensor([rows], dtype=torch.float32)


def test_cells_that_a_box_covers_by_half_are_positive():
    target = cell_targets(boxes((0, 16, 16, 48, 40)), STILL, (1, 1, 4, 4))[0, 0]
    wanted = torch.zeros(4, 4)
    wanted[1:3, 1:3] = 1  # the lower two by half
    assert torch.equal(target, wanted)


def test_a_box_smaller_than_a_cell_counts_where_it_lies():
    target = cell_targets(boxes((1, 20, 36, 26, 42)), STILL, (1, 2, 4, 4))[0]
    assert target.sum() == 1
    assert target[1, 2, 1] == 1


def test_filling_is_no_box_and_a_box_outside_is_none():
    gone = boxes((0, -40, 0, -8, 64))
    assert not cell_targets(torch.full((1, 3, 5), -1.0), STILL, (1, 2, 4, 4)).any()
    assert not cell_targets(gone, STILL, (1, 1, 4, 4)).any()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    left=st.integers(0, 48),
    top=st.integers(0, 48),
    wide=st.integers(10, 40),
    high=st.integers(10, 40),
)
def test_a_box_moves_as_its_image_does(seed, left, top, wide, high):
    right, bottom = min(SIZE, left + wide), min(SIZE, top + high)
    image = torch.zeros(1, 1, SIZE, SIZE)
    image[:, :, top:bottom, left:right] = 1  # what is bright is what the box is drawn around
    config = AugmentConfig(rotation=90, shift=0.3, scale=0.3, **MOVES_ONLY)
    moved, moves = augment(image, config, torch.Generator().manual_seed(seed))
    target = cell_targets(boxes((0, left, top, right, bottom)), moves, (1, 1, 16, 16))[0, 0] > 0
    bright = torch.nn.functional.avg_pool2d(moved, SIZE // 16)[0, 0]
    enough = min(0.5, float(bright.max()))  # cells are looked up at points, pixels interpolated
    assert (bright[target] > enough - 0.3).all()
    assert (bright[~target] < enough + 0.3).all()
    assert target.any() or bright.max() < 0.3


def packed(rows, markers="off") -> Pack:
    found = [
        {"filestem": f"image{row}", "row": row, "class_id": CLASSES.index(name)}
        | dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))
        for row, name, *corners in rows
    ]
    index = pd.DataFrame({"filestem": [f"image{row}" for row in range(6)]})
    table = pd.DataFrame(found, columns=list(BOX_TYPES)).astype(BOX_TYPES)
    images = np.zeros((6, SIZE, SIZE), np.uint8)
    return Pack(images, index, table, Preparation(size=SIZE, markers=markers))


def test_classes_have_a_map_where_enough_training_images_hold_a_box():
    rows = [(row, name, 1, 1, 9, 9) for row in range(3) for name in ("fracture", "text")]
    rows += [(0, "metal", 0, 0, 5, 5)] * 4 + [(5, "softtissue", 0, 0, 5, 5)]
    some = MapsConfig(classes="all", least_images=3)
    train = np.arange(5)
    assert find_classes(packed(rows), train, some) == ("fracture", "text")
    # text that is filled with grey can be learned from no pixel
    assert find_classes(packed(rows, "fill"), train, some) == ("fracture",)
    assert find_classes(packed(rows), train, MapsConfig(classes="all", least_images=1)) == (
        "fracture", "metal", "text",
    )  # fmt: skip
    assert find_classes(packed(rows), train, MapsConfig(classes="none")) == ()
    assert find_classes(packed(rows), train, MapsConfig(classes="all")) == ()
    assert find_classes(packed(rows), train, MapsConfig(least_images=1)) == ()  # off by default


def test_boxes_of_images_are_in_grid_coordinates_and_an_unmarked_fracture_teaches_nothing():
    pack = packed([(2, "fracture", 0, 16, 32, 64), (2, "metal", 8, 8, 16, 16)])
    found = find_boxes(
        pack, np.array([1, 2, 3]), np.array([1, 1, 0]), ("fracture", "metal"), MapsConfig()
    )
    assert found.boxes.shape == (3, 2, 5)
    assert found.boxes[1].tolist() == [[0, -1, -0.5, 0, 1], [1, -0.75, -0.75, -0.5, -0.5]]
    assert (found.boxes[[0, 2], :, 0] == -1).all()
    # image 1 is fractured, but nobody has marked where
    assert found.known.tolist() == [[0, 1], [1, 1], [1, 1]]


def test_the_loss_is_weighted_cross_entropy_of_known_maps():
    maps = torch.zeros(2, 2, 3, 3)
    targets = torch.zeros(2, 2, 3, 3)
    targets[0, 0, 0, 0] = 1
    known = torch.tensor([[1.0, 0], [1, 0]])
    loss = map_loss(maps, targets, known, 4.0)
    assert loss.item() == pytest.approx(np.log(2) * (4 + 17) / 18)


def bars(images) -> np.ndarray:
    """The middle row of the brightest three rows of each image: where the toy's bar is, if any."""
    rows = images[:, :, 6:-6].mean(axis=2)
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]).argmax(axis=1) + 1


def toy_findings(train):
    """The boxes of the toy's bars, one for each fractured training image."""
    rows = [
        (row, "fracture", 6, middle - 1, toy.SIZE - 6, middle + 2)
        for row, middle in enumerate(bars(train.images))
        if train.labels[row]
    ]
    pack = replace(packed(rows), images=train.images)
    config = MapsConfig(least_images=5, stride=8)
    return find_boxes(pack, train.rows, train.labels, ("fracture",), config)


def toy_network(classes):
    options = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
    seed_weights(7)
    config = ModelConfig(backbone="convnextv2_atto", size=toy.SIZE, weights="none", options=options)
    return build_model(config, 2, maps=MapShape(classes=classes, stride=8))


def test_a_network_learns_from_boxes_where_the_bars_are(tmp_path):
    data = toy.data()
    findings = toy_findings(data.train)
    data = replace(data, findings=findings)
    settings = toy.config(epochs=8)
    train(toy_network(findings.classes), data, settings, tmp_path, device=toy.CPU)
    model = toy_network(findings.classes).eval()
    load_weights(model, tmp_path / MODEL)
    fractured = data.validation.images[data.validation.labels == 1]
    with torch.inference_mode():
        maps = model.look(to_images(fractured, toy.CPU))[1]
    seen = maps[:, 0].mean(dim=2).argmax(dim=1).numpy()  # the row of cells
    assert (seen == bars(fractured) // 8).mean() > 0.7  # by chance a quarter
