"""Boxes at prediction lie in the pixels of the image, and only a bundle with maps has any."""

import json

import cv2
import numpy as np
import torch
from small_bundles import INFO, write_small_bundle

from pedfrac.bundle.bundle import Bundle
from pedfrac.config.training import MapShape
from pedfrac.serving.images import find_images
from pedfrac.serving.prediction import predict


def bundle_with_maps(folder, **changes):
    maps = MapShape(classes=("metal", "fracture"), stride=8)
    fracture = INFO.fracture.model_copy(update={"maps": maps})
    return Bundle.load(
        write_small_bundle(folder, INFO.model_copy(update={"fracture": fracture, **changes}))
    )


def see_at(bundle, row, column):
    """Let the generalist's fracture map stand out at one of its 4 × 4 cells."""

    def answer(_, __, output):
        seen = torch.full_like(output, -6.0)
        seen[:, 1, row, column] = 3.0
        return seen

    bundle.networks["generalist"].maps.register_forward_hook(answer)


def boxes(bundle, tmp_path, shape=(120, 60)):
    file = tmp_path / "image.png"
    shades = np.linspace(20, 200, shape[0] * shape[1]).reshape(shape)
    cv2.imwrite(str(file), shades.astype(np.uint8))
    (found,) = predict(bundle, find_images([file]))["boxes"]
    return found


def test_a_box_lies_where_the_map_stands_out(tmp_path):
    bundle = bundle_with_maps(tmp_path)
    see_at(bundle, 3, 1)  # rows 24-32 and columns 8-16 of a letterbox of 32 pixels
    (found,) = json.loads(boxes(bundle, tmp_path))
    # the image fills columns 8-24, at 3.75 of its pixels each
    middle = (found["x1"] + found["x2"]) / 2, (found["y1"] + found["y2"]) / 2
    assert np.allclose(middle, (15, 105), atol=8)
    assert 0 <= found["x1"] < found["x2"] <= 60
    assert 0 <= found["y1"] < found["y2"] <= 120
    assert 0.5 < found["score"] <= 0.96


def test_what_stands_out_beside_the_image_is_no_box(tmp_path):
    bundle = bundle_with_maps(tmp_path)
    see_at(bundle, 1, 0)
    assert all(one["score"] < 0.5 for one in json.loads(boxes(bundle, tmp_path)))


def test_mirrored_views_show_the_boxes_of_the_image_itself(tmp_path):
    plain, mirrored = (
        bundle_with_maps(tmp_path / "a"),
        bundle_with_maps(tmp_path / "b", views="mirrored"),
    )
    assert boxes(plain, tmp_path) == boxes(mirrored, tmp_path)


def test_a_bundle_without_maps_has_no_boxes(tmp_path):
    assert boxes(Bundle.load(write_small_bundle(tmp_path)), tmp_path) == ""
