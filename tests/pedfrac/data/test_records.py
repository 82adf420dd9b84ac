"""Every fault of a data set is named, and nothing else is dropped."""

import os
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pedfrac.config.data import DataConfig
from pedfrac.config.loading import load_config
from pedfrac.data import dataset_csv, tables
from pedfrac.data.image_files import ImageFault, inspect_image
from pedfrac.data.layout import check_layout, fingerprint
from pedfrac.data.records import Records, load_records, read_records, save_records
from pedfrac.data.schema import CLASSES, COLUMNS
from pedfrac.errors import PedfracError
from pedfrac.pipeline.data import count_listed

FRACTURE_BOX = "3 0.5 0.5 0.2 0.2"
METAL_BOX = "4 0.5 0.5 0.2 0.2"
TEXT_BOX = "8 0.9 0.1 0.1 0.1"


def row(patient: int, **changes: str) -> dict[str, str]:
    """A sound row; odd patients have a fracture. Changed cells leave the filestem alone."""
    cells = dict.fromkeys(COLUMNS, "") | {
        "filestem": f"{patient:04d}_0000000{patient:03d}_01_WRI-L1_M014",
        "patient_id": str(patient),
        "study_number": "1",
        "timehash": str(patient),
        "gender": "M",
        "age": "14.1",
        "laterality": "L",
        "projection": "1",
        "fracture_visible": "1" if patient % 2 else "",
        "pixel_spacing": "0.144",
        "device_manufacturer": "Siemens",
    }
    return cells | changes


def noise(seed: int) -> np.ndarray:
    """An image of 16 bits, (height, width) = (48, 36)."""
    return np.random.default_rng(seed).integers(0, 65536, (48, 36), np.uint16)


class DataSet:
    """A data set of six sound images in a folder, to be spoiled by a test."""

    def __init__(self, root: Path):
        self.root = root
        self.rows = [row(patient) for patient in range(1, 7)]
        self.images, self.labels = root / "images", root / "labels"
        self.images.mkdir()
        self.labels.mkdir()
        for cells in self.rows:
            self.add_files(cells)

    def add_files(self, cells: dict[str, str]) -> None:
        stem = cells["filestem"]
        patient = int(stem[:4])
        pixels = noise(patient)
        (self.images / f"{stem}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        boxes = [TEXT_BOX] + [FRACTURE_BOX] * (cells["fracture_visible"] == "1")
        (self.labels / f"{stem}.txt").write_text("\n".join(boxes))

    def stem(self, patient: int) -> str:
        return self.rows[patient - 1]["filestem"]

    def image(self, patient: int) -> Path:
        return self.images / f"{self.stem(patient)}.png"

    def label(self, patient: int) -> Path:
        return self.labels / f"{self.stem(patient)}.txt"

    def set(self, patient: int, **changes: str) -> None:
        self.rows[patient - 1] |= changes

    def write(self) -> None:
        table = pd.DataFrame(self.rows)
        table.to_csv(self.root / "dataset.csv", index=False, encoding="utf-8-sig")

    def read(self, **options: object) -> Records:
        self.write()
        return read_records(DataConfig(root=str(self.root), **options))

    def error(self, **options: object) -> str:
        with pytest.raises(PedfracError) as caught:
            self.read(**options)
        return str(caught.value)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path)


def kinds(records: Records) -> list[tuple[str, str]]:
    return list(zip(records.issues["filestem"], records.issues["kind"], strict=True))


def only_issue(records: Records, dropped: bool = True) -> dict[str, object]:
    assert len(records.issues) == 1, records.issues.to_string()
    issue = records.issues.iloc[0].to_dict()
    assert issue["dropped"] == dropped
    assert (issue["filestem"] in set(records.table["filestem"])) != dropped
    return issue


def test_sound_data_are_read_in_their_types(data: DataSet) -> None:
    records = data.read()
    assert records.issues.empty
    assert list(records.table["filestem"]) == sorted(cells["filestem"] for cells in data.rows)
    first = records.table.iloc[0]
    assert (first["age"], first["patient_id"], first["projection"]) == (14.1, 1, 1)
    assert (first["width"], first["height"]) == (36, 48)
    assert first["image"] == f"images/{data.stem(1)}.png"
    assert records.table["fracture_visible"].tolist() == [True, False] * 3
    assert not records.table[["cast", "metal", "initial_exam"]].to_numpy().any()
    assert records.boxes["class_id"].tolist() == [8, 3, 8, 8, 3, 8, 8, 3, 8]
    assert records.boxes.iloc[1].tolist() == [data.stem(1), 3, 0.5, 0.5, 0.2, 0.2]


def test_the_order_of_rows_is_of_no_account(data: DataSet) -> None:
    forward = data.read()
    data.rows.reverse()
    pd.testing.assert_frame_equal(forward.table, data.read().table)


def test_summary_counts_rows_images_and_faults(data: DataSet) -> None:
    data.set(2, age="190")
    data.set(3, age="x", gender="Q")
    summary = data.read().summary()
    assert summary == {
        "rows": 6,
        "usable": 4,
        "dropped": 2,
        "issues": {"value": 3},
        "patients": 4,
        "studies": 4,
        "fractured": 2,
        "normal": 2,
        "metal": 0,
        "boxes": {"fracture": 2, "text": 4},
    }


@pytest.mark.parametrize("images", [True, False])
def test_records_survive_saving_exactly(data: DataSet, tmp_path: Path, images: bool) -> None:
    data.set(1, ao_classification='23r-M/2.1; "NA"', pixel_spacing="")
    data.set(2, ao_classification="NA")
    data.set(5, gender="nan")
    records = data.read(images=images)
    save_records(records, tmp_path / "once")
    loaded = load_records(tmp_path / "once")
    for name in ("table", "boxes", "issues"):
        pd.testing.assert_frame_equal(getattr(loaded, name), getattr(records, name))
    save_records(loaded, tmp_path / "twice")
    for name in ("records.csv", "boxes.csv", "issues.csv", "summary.json"):
        once, twice = tmp_path / "once" / name, tmp_path / "twice" / name
        assert once.read_bytes() == twice.read_bytes()


def test_metadata_alone_need_neither_images_nor_labels(tmp_path: Path) -> None:
    pd.DataFrame([row(1), row(2)]).to_csv(tmp_path / "dataset.csv", index=False)
    records = read_records(DataConfig(root=str(tmp_path), images=False))
    assert len(records.table) == 2
    assert records.boxes.empty
    assert records.table[["image", "sha256"]].eq("").all(axis=None)


# ---- faults of the whole table ----------------------------------------------------------------


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PedfracError, match=r"dataset\.csv: is missing"):
        read_records(DataConfig(root=str(tmp_path)))
    with pytest.raises(PedfracError, match=r"dataset\.csv: is missing"):
        fingerprint(DataConfig(root=str(tmp_path)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (",".join(COLUMNS).encode(), "holds no rows"),
        (",".join(COLUMNS).encode() + b"\n\xe4,1\n", "is not UTF-8"),
        (";".join(COLUMNS).encode() + b"\n", "'filestem', 'patient_id'"),
        (",".join((*COLUMNS, "age")).encode() + b"\n", "column 'age' is there twice"),
    ],
)
def test_an_unusable_table_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "dataset.csv").write_bytes(content)
    with pytest.raises(PedfracError, match=message):
        read_records(DataConfig(root=str(tmp_path)))


def test_a_renamed_column_is_named_with_its_old_name(data: DataSet) -> None:
    data.write()
    path = data.root / "dataset.csv"
    path.write_text(path.read_text(encoding="utf-8-sig").replace(",age,", ",age_years,"))
    with pytest.raises(PedfracError, match="'age' is missing; column 'age_years' is unknown"):
        read_records(DataConfig(root=str(data.root)))


def test_a_further_column_is_noted(data: DataSet) -> None:
    data.set(1, remark="x")
    issue = data.read().issues.iloc[0]
    assert (issue["kind"], issue["field"], issue["dropped"]) == ("column-unknown", "remark", False)


def test_a_folder_without_labels_or_images_is_an_error(data: DataSet) -> None:
    data.labels.rename(data.root / "annotations")
    assert "no labels folder" in data.error()
    data.images.rename(data.root / "pictures")
    (data.root / "annotations").rename(data.labels)
    assert "no images*/ folder" in data.error()


def test_a_glance_at_the_layout_ends_as_reading_would(data: DataSet) -> None:
    """What stops everything is told at once; single images are not looked at."""
    config = DataConfig(root=str(data.root))
    with pytest.raises(PedfracError, match="dataset.csv: is missing"):
        check_layout(config)
    data.image(1).write_bytes(b"")
    data.write()
    check_layout(config)
    data.labels.rename(data.root / "annotations")
    for look in (check_layout, read_records):
        with pytest.raises(PedfracError, match="no labels folder"):
            look(config)
    check_layout(config.model_copy(update={"images": False}))
    text = (data.root / "dataset.csv").read_text(encoding="utf-8-sig")
    (data.root / "dataset.csv").write_text(text.replace(",age,", ",years,", 1))
    with pytest.raises(PedfracError, match="'age' is missing; column 'years' is unknown"):
        check_layout(config)


def test_no_usable_row_is_an_error_that_names_the_faults(data: DataSet) -> None:
    for patient in range(1, 7):
        data.set(patient, age="190")
    message = data.error()
    assert "no usable row of 6" in message
    assert "value 6" in message
    assert "'190'" in message


# ---- faults of a row --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("age", "190"),
        ("age", "-1"),
        ("age", ""),
        ("age", "14,1"),
        ("age", "inf"),
        ("gender", "m"),
        ("laterality", ""),
        ("projection", "4"),
        ("projection", "AP"),
        ("patient_id", "1.5"),
        ("study_number", ""),
        ("timehash", "-3"),
        ("fracture_visible", "2"),
        ("cast", "yes"),
        ("pixel_spacing", "0"),
    ],
)
def test_a_cell_that_is_not_allowed_drops_its_row(data: DataSet, name: str, value: str) -> None:
    data.set(3, **{name: value})
    records = data.read()
    issue = only_issue(records)
    assert (issue["kind"], issue["field"], issue["value"]) == ("value", name, value)
    assert (issue["filestem"], issue["line"]) == (data.stem(3), 4)
    assert "must be" in str(issue["reason"])
    assert len(records.table) == 5
    assert data.stem(3) not in set(records.boxes["filestem"])


def test_every_fault_of_a_row_is_listed(data: DataSet) -> None:
    data.set(3, age="190", gender="Q", metal="x")
    assert data.read().issues["field"].tolist() == ["age", "gender", "metal"]


@pytest.mark.parametrize("zero", ["0", "0.0"])
def test_a_flag_of_zero_means_no(data: DataSet, zero: str) -> None:
    data.set(2, fracture_visible=zero, cast=zero, metal=zero)
    records = data.read()
    assert records.issues.empty
    assert not records.table.loc[1, ["fracture_visible", "cast", "metal"]].any()


def test_lines_are_counted_across_quoted_line_breaks(data: DataSet) -> None:
    data.set(1, ao_classification="23r-M/2.1\n23u-E/7")
    data.set(3, age="190")
    assert only_issue(data.read())["line"] == 5


def test_a_row_of_another_length_is_dropped(data: DataSet) -> None:
    data.write()
    path = data.root / "dataset.csv"
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    lines[2] = lines[2].rsplit(",", 1)[0]
    lines[4] += ",surplus"
    path.write_text("\n".join(lines))
    records = read_records(DataConfig(root=str(data.root)))
    assert kinds(records) == [(data.stem(2), "row-length"), (data.stem(4), "row-length")]


def test_a_repeated_row_is_kept_once(data: DataSet) -> None:
    data.rows.append(row(2))
    records = data.read()
    assert kinds(records) == [(data.stem(2), "duplicate")]
    assert records.issues.iloc[0]["line"] == 8
    assert len(records.table) == 6
    assert records.summary()["dropped"] == 1


def test_rows_that_contradict_each_other_are_all_dropped(data: DataSet) -> None:
    data.rows += [row(2), row(2, age="14.2")]
    records = data.read()
    assert kinds(records) == [(data.stem(2), "duplicate-contradictory")] * 3
    assert len(records.table) == 5


@pytest.mark.parametrize("stem", ["", "image", "../0001_1_01_WRI-L1_M014", "0003_1_01_WRI-L1_M14"])
def test_a_malformed_filestem_drops_its_row(data: DataSet, stem: str) -> None:
    data.set(3, filestem=stem)
    issues = data.read().issues
    dropped = issues[issues["dropped"]]
    assert dropped["kind"].tolist() == ["filestem"]
    assert dropped["value"].tolist() == [stem]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("patient_id", "33", "0003"),
        ("timehash", "33", "0000000003"),
        ("study_number", "2", "01"),
        ("laterality", "R", "L"),
        ("projection", "2", "1"),
        ("gender", "F", "M"),
        ("age", "13.9", "014"),
    ],
)
def test_a_filestem_that_contradicts_a_column_drops_its_row(
    data: DataSet, name: str, value: str, said: str
) -> None:
    data.set(3, **{name: value})
    issue = only_issue(data.read())
    assert (issue["kind"], issue["field"], issue["value"]) == ("filestem-mismatch", name, value)
    assert issue["reason"] == f"the filestem says {said}, the column {name} {value}"


# ---- faults of images -------------------------------------------------------------------------


def test_missing_images_stop_the_run_or_are_left_out_by_name(data: DataSet) -> None:
    data.image(2).unlink()
    data.image(5).unlink()
    message = data.error()
    assert "2 of 6 images are missing" in message
    assert data.stem(2) in message
    assert "data.missing" in message
    assert "1 allowed" in data.error(missing_allowed=1)
    for options in ({"missing_allowed": 2}, {"missing": "drop"}):
        records = data.read(**options)
        assert kinds(records) == [(data.stem(p), "image-missing") for p in (2, 5)]
        assert len(records.table) == 4


def test_what_is_listed_is_counted_with_or_without_images(data: DataSet) -> None:
    data.image(2).unlink()
    data.set(3, age="190")
    assert len(data.read(missing="drop").table) == 4
    listed = count_listed(load_config(None, [f"data.root={data.root}", "data.missing=drop"]))
    assert (listed["images"], listed["patients"], listed["studies"]) == (5, 5, 5)
    assert (listed["fractured"], listed["normal"], listed["metal"]) == (2, 3, 0)
    assert [group["before"]["images"] for group in listed["groups"]] == [0, 0, 0, 5, 0]


def test_a_image_in_two_folders_is_dropped(data: DataSet) -> None:
    other = data.root / "images_part2"
    other.mkdir()
    (other / data.image(2).name).write_bytes(data.image(3).read_bytes())
    issue = only_issue(data.read())
    assert issue["kind"] == "image-ambiguous"
    assert "images/" in str(issue["value"])
    assert "images_part2/" in str(issue["value"])


def damage(content: bytes) -> bytes:
    middle = content.index(b"IDAT") + 6
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda content: content[:-20], "image-truncated"),
        (lambda content: content[:-12], "image-truncated"),  # all but the end chunk
        (lambda content: content[:10], "image-truncated"),
        (damage, "image-damaged"),
        (lambda content: content[:33] + content[-12:], "image-damaged"),  # header and end only
        (lambda content: content[:8] + content[-12:], "image-damaged"),  # no header
        (lambda content: b"", "image-unreadable"),
        (lambda content: b"<html>not found</html>", "image-unreadable"),
    ],
)
def test_an_image_that_is_not_whole_is_dropped(data: DataSet, spoil, kind: str) -> None:
    path = data.image(2)
    path.write_bytes(spoil(path.read_bytes()))
    issue = only_issue(data.read())
    assert (issue["kind"], issue["filestem"]) == (kind, data.stem(2))
    assert issue["value"] == f"images/{path.name}"


def test_every_cut_of_a_png_is_noticed(data: DataSet, tmp_path: Path) -> None:
    content = data.image(1).read_bytes()
    path = tmp_path / "cut.png"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ImageFault):
            inspect_image(path)


def test_jpeg_is_read_and_a_cut_one_noticed(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 36), np.uint8)
    content = cv2.imencode(".jpg", pixels)[1].tobytes()
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    assert inspect_image(path)[:2] == (36, 48)
    path.write_bytes(content[:-50])
    with pytest.raises(ImageFault, match="a JPEG truncated"):
        inspect_image(path)
    path.write_bytes(b"\xff\xd8\xff" + b"\0" * 50 + b"\xff\xd9")
    with pytest.raises(ImageFault, match="a JPEG without a picture"):
        inspect_image(path)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageFault, match="cannot be read"):
        inspect_image(tmp_path)


def test_one_image_under_two_names_is_noted(data: DataSet) -> None:
    data.image(3).write_bytes(data.image(1).read_bytes())
    issue = only_issue(data.read(), dropped=False)
    assert (issue["kind"], issue["filestem"]) == ("image-repeated", data.stem(3))
    assert f"{data.stem(1)}, of another patient" in str(issue["reason"])


def test_files_that_no_row_names_are_noted(data: DataSet) -> None:
    left_over = row(9)
    data.add_files(left_over)
    records = data.read()
    stem = left_over["filestem"]
    assert kinds(records) == [(stem, "image-without-row"), (stem, "label-without-row")]
    assert not records.issues["dropped"].any()
    assert len(records.table) == 6


def test_progress_counts_all_images(data: DataSet) -> None:
    data.write()
    seen: list[tuple[int, int]] = []
    config = DataConfig(root=str(data.root))
    read_records(config, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 6) for n in range(1, 7)]


# ---- faults of labels -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "kind", "reason"),
    [
        ("9 0.5 0.5 0.1 0.1", "label-class", "class 9 must be 0 to 8"),
        ("-1 0.5 0.5 0.1 0.1", "label-class", "must be 0 to 8"),
        ("8 0.5 0.5 0.1", "label-malformed", "must be: class xc yc w h"),
        ("8 0.5 0.5 0.1 0.1 0.9", "label-malformed", "must be: class xc yc w h"),
        ("text 0.5 0.5 0.1 0.1", "label-malformed", "must be: class xc yc w h"),
        ("8 nan 0.5 0.1 0.1", "label-malformed", "finite"),
        ("8 0.5 0.5 0 0.1", "label-box", "positive"),
        ("8 0.5 0.5 0.1 -0.1", "label-box", "positive"),
        ("8 0.98 0.5 0.2 0.1", "label-box", "within"),
        ("8 0.5 -0.2 0.1 0.1", "label-box", "within"),
    ],
)
def test_a_bad_label_line_drops_its_image(data: DataSet, line: str, kind: str, reason: str) -> None:
    data.label(2).write_text(f"{TEXT_BOX}\n\n{line}\n")
    issue = only_issue(data.read())
    assert (issue["kind"], issue["value"]) == (kind, line)
    assert str(issue["reason"]).startswith("line 3 of the label file: ")
    assert reason in str(issue["reason"])


def test_a_box_may_reach_one_pixel_beyond_the_edge(data: DataSet) -> None:
    data.label(2).write_text("8 0.95 0.5 0.15 0.1")  # 0.9 of a pixel beyond, of 36
    assert data.read().issues.empty


def test_a_label_file_that_is_not_text_drops_its_image(data: DataSet) -> None:
    data.label(2).write_bytes(b"\xff\xfe8")
    assert only_issue(data.read())["kind"] == "label-unreadable"


def test_a_image_without_label_file_has_no_boxes(data: DataSet) -> None:
    data.label(2).unlink()
    records = data.read(unlabelled_allowed=0.2)
    assert only_issue(records, dropped=False)["kind"] == "label-missing"
    data.label(1).unlink()
    records = data.read(unlabelled_allowed=0.4)
    assert (data.stem(1), "fracture-flag") in kinds(records)
    assert len(records.table) == 5


@pytest.mark.parametrize(
    ("patient", "cells", "boxes", "kind"),
    [
        (1, {}, TEXT_BOX, "fracture-flag"),
        (2, {}, FRACTURE_BOX, "fracture-flag"),
        (2, {"metal": "1"}, TEXT_BOX, "metal-flag"),
        (2, {}, METAL_BOX, "metal-flag"),
    ],
)
def test_a_flag_that_contradicts_the_boxes_drops_its_image(
    data: DataSet, patient: int, cells: dict[str, str], boxes: str, kind: str
) -> None:
    data.set(4, metal="1")
    data.label(4).write_text(METAL_BOX)
    data.set(patient, **cells)
    data.label(patient).write_text(boxes)
    issue = only_issue(data.read())
    assert (issue["kind"], issue["filestem"]) == (kind, data.stem(patient))


def test_a_set_without_any_fracture_box_is_noted_once(data: DataSet) -> None:
    for patient in (1, 3, 5):
        data.label(patient).write_text(TEXT_BOX)
    data.set(2, metal="1")
    said = data.error()
    assert "labels: none of 3 fractured images has a fracture box (class 3)" in said
    assert "data.unlabelled to allow" in said
    records = data.read(unlabelled="allow")
    assert [kind for _, kind in kinds(records)] == ["no-fracture-boxes", "no-metal-boxes"]
    assert len(records.table) == 6


@pytest.mark.parametrize(
    ("move", "said"),
    [
        (lambda label: label.parent / "train" / label.name, "6 lie in folders below it"),
        (lambda label: label.with_suffix(".TXT"), "6 end in .TXT, not in .txt"),
        (lambda label: label.parents[1] / label.name, "it is empty"),
    ],
)
def test_a_folder_of_labels_without_labels_stops(data: DataSet, move, said) -> None:
    """A folder that is there, but not the labels, is as good as none: all markers would stay."""
    for patient in range(1, 7):
        target = move(data.label(patient))
        target.parent.mkdir(exist_ok=True)
        data.label(patient).rename(target)
    error = data.error()
    assert "labels: 6 of 6 images have no label file here" in error and said in error
    assert "side markers would stay; 10% are allowed" in error
    assert len(data.read(unlabelled="allow").table) == 6


def test_labels_of_a_part_of_the_images_stop(data: DataSet) -> None:
    data.label(2).unlink()
    assert "1 of 6 images have no label file here" in data.error()
    assert "1 of 6" in data.error(unlabelled_allowed=0.1666)
    assert len(data.read(unlabelled_allowed=0.1667).table) == 6


@pytest.mark.parametrize("images", [True, False])
def test_most_rows_dropped_stop_with_the_reasons(data: DataSet, images: bool) -> None:
    for patient in range(1, 5):
        data.set(patient, age="190")
    error = data.error(images=images)
    assert "dataset.csv: 4 of 6 rows cannot be used, 50% are allowed; value 4" in error
    assert "line 2 age '190' must be a number of years" in error
    assert len(data.read(images=images, dropped_allowed=0.7).table) == 2


def test_images_that_are_missing_do_not_count_as_dropped(data: DataSet) -> None:
    for patient in range(1, 5):
        data.image(patient).unlink()
    assert len(data.read(missing="drop").table) == 2


def test_class_order_is_that_of_the_published_labels() -> None:
    assert (CLASSES.index("fracture"), CLASSES.index("metal"), CLASSES.index("text")) == (3, 4, 8)


# ---- fingerprint ------------------------------------------------------------------------------


def test_the_fingerprint_changes_with_table_images_and_labels(data: DataSet) -> None:
    data.write()
    config = DataConfig(root=str(data.root))
    before = fingerprint(config)
    assert fingerprint(config) == before
    os.utime(data.image(1), ns=(1, 1))
    after = fingerprint(config)
    assert {name for name in before if before[name] != after[name]} == {"images"}
    data.label(1).write_text(f"{FRACTURE_BOX}\n{FRACTURE_BOX}\n{FRACTURE_BOX}")
    assert fingerprint(config)["labels"] != before["labels"]
    assert set(fingerprint(config.model_copy(update={"images": False}))) == {"dataset.csv"}


def test_few_rows_are_python_objects_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "PIECE", 100)
    peaks = []
    for count in (300, 1300):
        images = [row(patient) for patient in range(1000, 1000 + count)]
        pd.DataFrame(images).to_csv(tmp_path / "dataset.csv", index=False)
        tracemalloc.start()
        dataset_csv.read_dataset_csv(tmp_path / "dataset.csv")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 1000 < 600, "bytes an image; all at a time take 1,000"


def test_what_is_left_out_of_the_folders_is_listed(data: DataSet) -> None:
    (data.images / "a.tif").write_bytes(b"II*\0")
    (data.images / "b.png").symlink_to(data.images / "nowhere.png")
    (data.images / "deep").mkdir()
    records = data.read()
    assert kinds(records) == [(stem, "image-left-out") for stem in ("a", "b", "deep")]
    assert records.issues["reason"].tolist() == [
        "is not read; allowed are .png, .jpg, .jpeg",
        "is a link to nothing",
        "is a folder in a folder of images: not searched",
    ]
    assert len(records.table) == 6


def test_names_that_are_no_utf8_are_listed_and_saved(data: DataSet, tmp_path: Path) -> None:
    latin = os.fsdecode(b"caf\xe9")
    (data.images / f"{latin}.png").write_bytes(b"")
    (data.images / f"{latin}.tif").write_bytes(b"")
    (data.labels / f"{latin}.txt").write_text("")
    records = data.read()
    assert set(records.issues["filestem"]) == {"caf\\xe9"}
    assert sorted(records.issues["kind"]) == [
        *("image-left-out", "image-without-row", "label-without-row")
    ]
    save_records(records, tmp_path / "saved")
    pd.testing.assert_frame_equal(load_records(tmp_path / "saved").issues, records.issues)


def test_images_that_show_nothing_are_listed(data: DataSet) -> None:
    data.image(1).write_bytes(cv2.imencode(".png", np.zeros((48, 36), np.uint16))[1].tobytes())
    data.image(2).write_bytes(cv2.imencode(".png", np.ones((1, 1), np.uint16))[1].tobytes())
    records = data.read()
    assert kinds(records) == [
        (data.stem(1), "image-empty"),
        (data.stem(2), "image-too-small"),
    ]
    assert len(records.table) == 4
