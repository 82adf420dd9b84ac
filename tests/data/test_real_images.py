"""Real radiographs through pixels and packing: exact values, markers gone, boxes in place."""

import ast
import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from pedfrac.config.data import DataConfig, Preparation
from pedfrac.data.records import read_records
from pedfrac.imaging import png
from pedfrac.imaging.boxes import yolo_to_xyxy
from pedfrac.imaging.decoding import decode
from pedfrac.imaging.letterbox import Placement
from pedfrac.imaging.markers import MARKER_MARGIN, remove_markers
from pedfrac.packs.build import build_pack
from pedfrac.packs.pack import TEXT, Pack

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ROOT = SHARED / "grazpedwri"
JPEGS = SHARED / "fracatlas_leg" / "images"

pytestmark = pytest.mark.skipif(
    not (ROOT / "images").is_dir(), reason=f"the real images are not at {ROOT / 'images'}"
)

SIZES = [224, 384, 1024]  # the last enlarges some of the images
MARGIN = MARKER_MARGIN


@pytest.fixture(scope="module")
def records():
    return read_records(DataConfig(root=str(ROOT), missing="drop"))


@pytest.fixture(scope="module")
def packs(records, tmp_path_factory):
    """A function that gives the pack of a side and a way with markers, built once."""
    built: dict[tuple[int, str], Pack] = {}

    def pack(size: int, markers: str) -> Pack:
        if (size, markers) not in built:
            folder = tmp_path_factory.mktemp(f"{markers}{size}")
            preparation = Preparation(size=size, markers=markers)
            build_pack(folder, records.table, records.boxes, ROOT, preparation)
            built[size, markers] = Pack.open(folder)
        return built[size, markers]

    return pack


@pytest.fixture(scope="module")
def truth():
    """Boxes xyxy in pixels by image and class, from the table of all boxes."""
    with (ROOT / "boxes_all.csv").open(newline="") as file:
        rows = {row["image_id"]: row for row in csv.DictReader(file)}
    return {
        stem: list(
            zip(
                ast.literal_eval(row["labels"]),
                ([x1, y1, x2, y2] for y1, x1, y2, x2 in ast.literal_eval(row["bbox_list"])),
                strict=True,
            )
        )
        for stem, row in rows.items()
    }


def image_and_markers(records, image):
    own = records.boxes[
        (records.boxes["filestem"] == image.filestem) & (records.boxes["class_id"] == TEXT)
    ]
    return decode(ROOT / image.image), yolo_to_xyxy(
        own[["xc", "yc", "w", "h"]], image.width, image.height
    )


def region(boxes, shape, grow):
    """Pixels of the boxes grown by so much, by another way than the code's own."""
    ys, xs = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, bool)
    for x1, y1, x2, y2 in boxes:
        inside |= (xs > x1 - grow) & (xs < x2 + grow) & (ys > y1 - grow) & (ys < y2 + grow)
    return inside


def test_the_images_are_the_14_that_the_tests_know(records):
    assert len(records.table) == 14


@pytest.mark.parametrize("size", SIZES)
def test_with_markers_left_a_pack_is_the_high_byte_resized(records, packs, size):
    pack = packs(size, "off")
    for row, image in enumerate(records.table.itertuples()):
        raw = cv2.imread(str(ROOT / image.image), cv2.IMREAD_UNCHANGED)
        assert raw.dtype == np.uint16
        scale = size / max(raw.shape)
        width, height = round(raw.shape[1] * scale), round(raw.shape[0] * scale)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize((raw >> 8).astype(np.uint8), (width, height), interpolation=how)
        left, top = (size - width) // 2, (size - height) // 2
        expected = np.pad(
            small, ((top, size - height - top), (left, size - width - left)), constant_values=0
        )
        assert np.array_equal(pack.images[row], expected), image.filestem


@pytest.mark.parametrize("markers", ["fill", "inpaint"])
@pytest.mark.parametrize("size", SIZES)
def test_outside_the_markers_a_pack_is_unchanged(records, packs, size, markers):
    cleaned, left = packs(size, markers), packs(size, "off")
    for row, image in enumerate(records.table.itertuples()):
        scale = size / max(image.width, image.height)
        boxes = cleaned.boxes_of(row, TEXT)
        assert len(boxes)
        # One pixel of the image for rounding outward, two of the pack for the interpolation.
        near = region(boxes, (size, size), (MARGIN + 1) * scale + 2)
        assert near.mean() < 0.05
        assert np.array_equal(cleaned.images[row][~near], left.images[row][~near])
        assert not np.array_equal(cleaned.images[row], left.images[row])


@pytest.mark.parametrize("markers", ["fill", "inpaint"])
def test_outside_the_markers_a_image_is_bit_identical(records, markers):
    for image in records.table.itertuples():
        pixels, boxes = image_and_markers(records, image)
        cleaned = remove_markers(pixels, boxes, markers)
        outside = ~region(boxes, pixels.shape, MARGIN + 1)
        assert np.array_equal(cleaned[outside], pixels[outside])


def test_the_whole_marker_is_removed_not_only_its_tight_box(records):
    reached_out = 0
    for image in records.table.itertuples():
        pixels, boxes = image_and_markers(records, image)
        letter = 0.7 * np.percentile(pixels[region(boxes, pixels.shape, 0)], 90)
        ring = region(boxes, pixels.shape, MARGIN + 4) & ~region(boxes, pixels.shape, MARGIN + 1)
        tight = region(boxes, pixels.shape, 2) & ~region(boxes, pixels.shape, 1)
        reached_out += (pixels[tight] > letter).any()
        # On 1068 the edge of the image, as bright as a letter, passes beside the marker.
        assert image.filestem.startswith("1068") or not (pixels[ring] > letter).any()
    assert reached_out, "if labels were not tight, no margin would be needed"


def test_filled_regions_are_as_dark_as_their_surroundings(records):
    for image in records.table.itertuples():
        pixels, boxes = image_and_markers(records, image)
        inside = region(boxes, pixels.shape, 0)
        cleaned = remove_markers(pixels, boxes, "fill")
        assert pixels[inside].max() > 200
        assert cleaned[inside].max() < 80
        assert len(np.unique(cleaned[inside])) == 1


@pytest.mark.parametrize("size", SIZES)
def test_labels_land_where_the_table_of_all_boxes_says(records, packs, truth, size):
    pack = packs(size, "fill")
    for row, image in enumerate(records.table.itertuples()):
        placement = Placement.of(image.height, image.width, size)
        known = truth[image.filestem]
        classes = sorted({class_id for class_id, _ in known})
        assert sorted(set(pack.boxes.loc[pack.boxes["row"] == row, "class_id"])) == classes
        for class_id in classes:
            expected = np.array([box for found, box in known if found == class_id])
            boxes = placement.invert(pack.boxes_of(row, class_id))
            assert len(boxes) == len(expected)
            assert np.abs(boxes[:, None] - expected).max(axis=2).min(axis=1).max() <= 1.1


def test_the_images_are_read_the_fast_way_as_opencv_reads_them(records):
    for image in records.table["image"]:
        data = (ROOT / image).read_bytes()
        expected = cv2.imread(str(ROOT / image), cv2.IMREAD_UNCHANGED) >> 8
        found = png.high_bytes(png.chunks(data))
        assert found is not None, image
        assert np.array_equal(found, expected), image
        assert np.array_equal(decode(ROOT / image), expected), image


@pytest.mark.skipif(not JPEGS.is_dir(), reason=f"the real JPEGs are not at {JPEGS}")
def test_real_jpegs_decode_as_opencv_reads_them():
    paths = sorted(JPEGS.glob("*.jpg"))[::50]
    assert paths
    for path in paths:
        assert np.array_equal(decode(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
