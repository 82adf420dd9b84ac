"""Phantoms: the published layout, truthful labels, anatomy in order of age, equal bytes by seed."""

import csv
import hashlib
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pedfrac.age_groups import AgeGroups
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.errors import PedfracError
from pedfrac.phantoms.anatomy import CARPAL_ONSET, build, carpal_centres, growth, physis_gap
from pedfrac.phantoms.dataset import (
    COLUMNS,
    FAULTS,
    LABELS,
    LESION_AGE,
    Row,
    plan,
    plan_lesions,
    render_row,
    write_phantoms,
)
from pedfrac.phantoms.image import HEIGHT_RANGE, WIDTH_RANGE, ImageSpec, render
from pedfrac.phantoms.overlays import TEXT
from pedfrac.phantoms.shapes import Fracture, Lesion, Subject

FRACTURE, METAL = 3, 4
FLAGS = ("initial_exam", "cast", "diagnosis_uncertain", "osteopenia", "fracture_visible", "metal")
SMALL = PhantomConfig(images=72, seed=5, scale=0.2, workers=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "set"
    assert write_phantoms(folder, SMALL) == []
    return folder


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    folder = tmp_path_factory.mktemp("faulty")
    planted = write_phantoms(folder, SMALL.model_copy(update={"faults": 2}))
    stems = defaultdict(list)
    for fault in planted:
        stems[fault.kind].append(fault.stem)
    return folder, stems


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "dataset.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def boxes(folder: Path, stem: str) -> list[tuple[int, float, float, float, float]]:
    lines = (folder / LABELS / f"{stem}.txt").read_text().splitlines()
    return [(int(line.split()[0]), *map(float, line.split()[1:])) for line in lines]  # type: ignore[misc]


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def contradictions(row: dict[str, str]) -> list[str]:
    """Columns that the file name contradicts."""
    patient, time, study, rest = row["filestem"].split("_", 3)
    where, who = rest.removeprefix("WRI-").split("_")
    told = {
        "patient_id": int(patient) == int(row["patient_id"]),
        "timehash": int(time) == int(row["timehash"]),
        "study_number": int(study) == int(row["study_number"]),
        "laterality": where[0] == row["laterality"],
        "projection": where[1] == row["projection"],
        "gender": who[0] == row["gender"],
        "age": int(who[1:]) == int(float(row["age"])),
    }
    return [column for column, agrees in told.items() if not agrees]


# --- bytes -----------------------------------------------------------------------------------


def test_tables_and_boxes_are_those_of_earlier_versions(folder: Path) -> None:
    """Pixels may change with the drawing library, text only with this code."""
    texts = sorted(path for path in folder.rglob("*") if path.suffix in (".csv", ".txt"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in texts)).hexdigest()
    assert digest == "5f40fa345cd5daf453e2b1ba8bf5f8112561301ab5f84faa863bc03a1a7b1fb6"


def test_bytes_depend_on_the_seed_alone(folder: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path, SMALL.model_copy(update={"workers": 2}))
    assert digests(tmp_path) == digests(folder)
    other = render_row(plan(1, 6)[0], SMALL)[0]
    assert not np.array_equal(other, render_row(plan(1, 5)[0], SMALL)[0])


def test_fewer_images_are_the_first_of_more() -> None:
    assert plan(30, 5) == plan(200, 5)[:30]


def test_clearer_fractures_change_the_fractured_images_alone(tmp_path: Path) -> None:
    few = {"images": 8, "seed": 5, "scale": 0.1, "workers": 1}
    for severity in (0, 1):
        write_phantoms(tmp_path / str(severity), PhantomConfig(**few, severity=severity))
    rows = plan(8, 5)
    assert {row.fractured for row in rows} == {True, False}
    for row in rows:
        one, other = (
            next((tmp_path / str(severity)).glob(f"images_part*/{row.stem}.png")).read_bytes()
            for severity in (0, 1)
        )
        assert (one == other) == (not row.fractured)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[int] = []
    config = PhantomConfig(images=5, scale=0.1, workers=1)
    write_phantoms(tmp_path, config, seen.append)
    assert seen == [1, 2, 3, 4, 5]


# --- layout and table ------------------------------------------------------------------------


def test_layout_is_the_published_one(folder: Path) -> None:
    parts = sorted(path.name for path in folder.glob("images_part*"))
    assert parts == [f"images_part{part}" for part in (1, 2, 3, 4)]
    assert all(any((folder / part).iterdir()) for part in parts)
    stems = {row["filestem"] for row in table(folder)}
    assert {path.stem for path in folder.glob("images_part*/*.png")} == stems
    assert {path.stem for path in (folder / LABELS).glob("*.txt")} == stems
    assert len(stems) == SMALL.images


def test_table_is_written_like_the_original(folder: Path) -> None:
    raw = (folder / "dataset.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbffilestem,patient_id,")
    assert raw.count(b"\n") == raw.count(b"\r\n") == SMALL.images + 1
    rows = table(folder)
    assert tuple(rows[0]) == COLUMNS
    assert {row[flag] for row in rows for flag in FLAGS} == {"", "1"}


def test_file_names_agree_with_the_columns(folder: Path) -> None:
    assert [contradictions(row) for row in table(folder)] == [[]] * SMALL.images


def test_columns_match_the_real_table(real_table: Path) -> None:
    with real_table.open(encoding="utf-8-sig") as file:
        assert tuple(file.readline().strip().split(",")) == COLUMNS


@pytest.fixture
def real_table() -> Path:
    path = Path(__file__).parents[4] / "shared/data/grazpedwri/dataset.csv"
    if not path.exists():
        pytest.skip(f"real data not there: {path}")
    return path


# --- images and boxes -------------------------------------------------------------------------


def test_boxes_tell_what_the_flags_tell(folder: Path) -> None:
    for row in table(folder):
        classes = {box[0] for box in boxes(folder, row["filestem"])}
        assert (FRACTURE in classes) == (row["fracture_visible"] == "1"), row["filestem"]
        assert (METAL in classes) == (row["metal"] == "1"), row["filestem"]


def test_boxes_lie_on_the_image(folder: Path) -> None:
    for row in table(folder):
        for _, x, y, wide, high in boxes(folder, row["filestem"]):
            assert wide > 0 and high > 0
            assert min(x - wide / 2, y - high / 2) >= -1e-6
            assert max(x + wide / 2, y + high / 2) <= 1 + 1e-6


def test_images_are_16_bit_and_of_real_size(folder: Path) -> None:
    for path in folder.glob("images_part*/*.png"):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert image.dtype == np.uint16 and image.ndim == 2
        for side, (low, high) in zip(image.shape, (HEIGHT_RANGE, WIDTH_RANGE), strict=True):
            assert low * SMALL.scale - 1 <= side <= high * SMALL.scale + 1
        assert image.max() > 60_000 and image.max() - image.min() > 50_000


def test_full_size_is_that_of_real_images() -> None:
    shapes = np.array([render_row(row, PhantomConfig(images=24))[0].shape for row in plan(24, 1)])
    height, width = np.median(shapes, axis=0)
    assert 850 < height < 1150 and 450 < width < 680


@settings(max_examples=40, deadline=None)
@given(
    age=st.floats(0.2, 19),
    sex=st.sampled_from("MFO"),
    view=st.sampled_from([1, 2, 3]),
    kind=st.sampled_from(["buckle", "greenstick", "transverse", "physeal"]),
    place=st.floats(0, 30),
    severity=st.floats(0, 1),
    seed=st.integers(0, 10_000),
)
def test_every_fracture_has_its_box(
    age: float, sex: str, view: int, kind: str, place: float, severity: float, seed: int
) -> None:
    fracture = Fracture("radius", kind, place, severity, 1 if seed % 2 else -1)
    spec = ImageSpec(Subject(age, sex, seed), view, "LR"[seed % 2], (seed,), (fracture,))
    image, found = render(spec, 0.1)
    (box,) = [box for box in found if box.label == FRACTURE]
    assert 0 <= box.x0 < box.x1 <= image.shape[1]
    assert 0 <= box.y0 < box.y1 <= image.shape[0]


def test_a_fracture_changes_the_image_inside_its_box_most() -> None:
    fracture = Fracture("radius", "buckle", 18, 1.0, 1)
    sound = ImageSpec(Subject(9.0, "M", 3), 1, "L", (3,))
    broken = ImageSpec(Subject(9.0, "M", 3), 1, "L", (3,), (fracture,))
    before, _ = render(sound, 0.5)
    after, found = render(broken, 0.5)
    (box,) = [box for box in found if box.label == FRACTURE]
    changed = np.argwhere(np.abs(after.astype(int) - before) > 500)
    inside = (changed >= [box.y0 - 1, box.x0 - 1]) & (changed <= [box.y1 + 1, box.x1 + 1])
    assert len(changed) > 50 and inside.all(axis=1).all()


@pytest.mark.parametrize("turns", [True, False])
def test_a_lesion_means_what_its_side_of_the_bound_says(turns: bool) -> None:
    rows = plan_lesions(160, 3, turns)
    cells = Counter(
        (row.image.subject.age >= LESION_AGE, row.fractured, row.image.lesion.dense)  # type: ignore[union-attr]
        for row in rows
    )
    # label and age are independent; so, with ``turns``, are label and lesion over all ages
    assert set(cells.values()) == {40}
    assert {old: broken == dense for old, broken, dense in cells} == {False: True, True: not turns}
    assert {row.image.view for row in rows} == {1, 2}
    assert plan_lesions(7, 3, turns) == rows[:7]


@given(
    age=st.floats(0.2, 19), sex=st.sampled_from("MFO"), dense=st.booleans(), broken=st.booleans()
)
@settings(max_examples=12, deadline=None)
def test_no_pixel_tells_age_or_label_of_a_lesion(
    age: float, sex: str, dense: bool, broken: bool
) -> None:
    shown = ImageSpec(Subject(3.0, "F", 8), 1, "L", (1, 2), lesion=Lesion(dense, fracture=True))
    other = replace(shown, subject=Subject(age, sex, 8), lesion=Lesion(dense, fracture=broken))
    image, there = render(shown, 0.1)
    again, here = render(other, 0.1)
    assert image.tobytes() == again.tobytes()
    assert [replace(box, label=0) for box in there] == [replace(box, label=0) for box in here]
    assert [box.label == FRACTURE for box in here].count(True) == broken
    turned, _ = render(replace(shown, lesion=Lesion(not dense, fracture=True)), 0.1)
    assert turned.tobytes() != image.tobytes()


def test_shortcut_tells_inside_the_marker_box_only() -> None:
    told = 0
    for row in plan(40, 2):
        plain, boxes = render(row.image, 0.2)
        cheat, again = render(row.image, 0.2, shortcut=True)
        assert boxes == again
        outside = plain != cheat
        for box in (box for box in boxes if box.label == TEXT):
            y, x = (
                slice(int(box.y0), int(np.ceil(box.y1))),
                slice(int(box.x0), int(np.ceil(box.x1))),
            )
            told += bool(outside[y, x].any())
            outside[y, x] = False
        assert not outside.any(), row.stem
        if not row.fractured:
            assert np.array_equal(plain, cheat)
    assert told >= 20


# --- whom the set is about -------------------------------------------------------------------


def test_every_age_group_has_patients_with_and_without_fracture() -> None:
    groups = AgeGroups((0, 1.5, 5, 10, 15, 19))
    patients: dict[tuple[int, bool], set[int]] = defaultdict(set)
    rows = plan(200, 0)
    for row in rows:
        group = int(groups.assign([row.image.subject.age])[0])
        patients[group, row.fractured].add(row.patient)
    assert set(patients) == {(group, label) for group in range(5) for label in (True, False)}
    assert min(map(len, patients.values())) >= 2
    assert sum(row.image.subject.age < 1.5 for row in rows) >= 12


def test_prevalence_follows_the_real_data() -> None:
    rows = plan(4000, 0)

    def share(chosen: list[Row]) -> float:
        return sum(row.fractured for row in chosen) / len(chosen)

    assert share([row for row in rows if row.initial]) == pytest.approx(0.42, abs=0.07)
    assert share([row for row in rows if not row.initial]) == pytest.approx(0.95, abs=0.07)
    assert share([row for row in rows if row.image.cast]) == pytest.approx(0.96, abs=0.03)
    assert sum(row.image.metal for row in rows) / 4000 == pytest.approx(0.035, abs=0.02)
    assert Counter(row.image.subject.sex for row in rows)["M"] / 4000 == pytest.approx(
        0.59, abs=0.06
    )


def test_a_patient_grows_older_and_stays_the_same() -> None:
    by_patient: dict[int, list[Row]] = defaultdict(list)
    for row in plan(600, 3):
        by_patient[row.patient].append(row)
    for rows in by_patient.values():
        ages = [row.image.subject.age for row in rows]
        assert ages == sorted(ages) and min(ages) >= 0.2 and max(ages) <= 19.0
        assert len({(row.image.subject.sex, row.image.laterality) for row in rows}) == 1
        assert [row.timehash for row in rows] == sorted({row.timehash for row in rows})
    assert max(len({row.study for row in rows}) for rows in by_patient.values()) > 3


# --- anatomy ---------------------------------------------------------------------------------


@given(ages=st.lists(st.floats(0.2, 19), min_size=2, max_size=6), sex=st.sampled_from("MFO"))
def test_anatomy_only_grows(ages: list[float], sex: str) -> None:
    grown = [growth(age, sex) for age in sorted(ages)]
    for younger, older in pairwise(grown):
        assert younger.bone_age <= older.bone_age
        assert set(carpal_centres(younger.bone_age)) <= set(carpal_centres(older.bone_age))
        assert physis_gap(younger.bone_age) >= physis_gap(older.bone_age)
        assert younger.width <= older.width * 1.001 and younger.size <= older.size * 1.001


def test_centres_appear_in_order_and_girls_are_ahead() -> None:
    assert list(CARPAL_ONSET)[:2] == ["capitate", "hamate"] and list(CARPAL_ONSET)[-1] == "pisiform"
    assert carpal_centres(0.1) == () and len(carpal_centres(12)) == 8
    assert len(carpal_centres(growth(3.2, "F").bone_age)) > len(carpal_centres(3.2))
    assert physis_gap(18) == 0


@pytest.mark.parametrize("view", [1, 2])
def test_one_wrist_gains_bones_with_age(view: int) -> None:
    counts = [len(build(Subject(age, "M", 7), view).bones) for age in (0.5, 3, 7, 12)]
    assert counts == sorted(set(counts))


# --- faults and refusals ---------------------------------------------------------------------


def test_faults_are_where_they_are_said_to_be(faulty: tuple[Path, dict[str, list[str]]]) -> None:
    folder, stems = faulty
    assert {kind: len(found) for kind, found in stems.items()} == dict.fromkeys(FAULTS, 2)
    assert len({stem for found in stems.values() for stem in found}) == 2 * len(FAULTS)
    rows = table(folder)
    count = Counter(row["filestem"] for row in rows)
    assert {stem for stem, times in count.items() if times > 1} == set(stems["duplicate"])
    images = {path.stem: path for path in folder.glob("images_part*/*.png")}
    assert count.keys() - images.keys() == set(stems["missing"])
    for stem in stems["truncated"]:
        assert images[stem].read_bytes().startswith(b"\x89PNG")
        assert b"IEND" not in images[stem].read_bytes()
    assert not any(images[stem].read_bytes().startswith(b"\x89PNG") for stem in stems["unreadable"])
    assert {row["filestem"] for row in rows if contradictions(row)} == set(stems["filename"])
    assert {row["filestem"] for row in rows if float(row["age"]) > 19} == set(stems["age"])


def test_faulty_labels_are_where_they_are_said_to_be(
    faulty: tuple[Path, dict[str, list[str]]],
) -> None:
    folder, stems = faulty
    unknown, outside, contradicting = set(), set(), set()
    for row in table(folder):
        found = boxes(folder, row["filestem"])
        if any(box[0] > TEXT for box in found):
            unknown.add(row["filestem"])
        if any(box[1] + box[3] / 2 > 1.01 for box in found):
            outside.add(row["filestem"])
        if any(box[0] == FRACTURE for box in found) != (row["fracture_visible"] == "1"):
            contradicting.add(row["filestem"])
    assert unknown == set(stems["class"])
    assert outside == set(stems["box"])
    assert contradicting == set(stems["fracture-flag"])


def test_faults_leave_the_other_images_alone(
    folder: Path, faulty: tuple[Path, dict[str, list[str]]]
) -> None:
    spoilt = {stem for stems in faulty[1].values() for stem in stems}
    sound, other = digests(folder), digests(faulty[0])
    same = [name for name in sound if name.endswith(".png") and Path(name).stem not in spoilt]
    assert len(same) >= SMALL.images - 2 * len(FAULTS)
    assert all(other.get(name) == sound[name] for name in same if name in other)


def test_an_occupied_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PedfracError, match="not empty"):
        write_phantoms(folder, SMALL)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(PedfracError, match="not empty"):
        write_phantoms(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    with pytest.raises(PedfracError, match="is a file"):
        write_phantoms(tmp_path / "note.txt", SMALL)


def test_more_faults_than_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PedfracError, match="at least 18 images"):
        write_phantoms(tmp_path / "new", PhantomConfig(images=17, faults=2))
    assert not (tmp_path / "new").exists()
