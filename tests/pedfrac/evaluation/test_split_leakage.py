"""Published splits: every form they come in, what their parts share, and what is left of them."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pedfrac.data.split import Split
from pedfrac.errors import PedfracError
from pedfrac.evaluation.split_leakage import STRICTEST_LAST, free_of_leakage, read_published_split

PARTS = {"train": ["0001_1_01_WRI-L1_M014"], "validation": ["0002_1_01_WRI-L1_M003"],
         "test": ["0003_1_01_WRI-R2_F011", "0003_2_01_WRI-R1_F011"]}  # fmt: skip


def split_of(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["filestem", "part"], dtype="str")


def by_part(split: pd.DataFrame) -> dict[str, list[str]]:
    return {part: sorted(rows["filestem"]) for part, rows in split.groupby("part")}


# ---- the forms --------------------------------------------------------------------------------


def write_one_file(folder: Path) -> Path:
    names = {"train": "train", "validation": "val", "test": "test"}
    rows = [f"{stem},{names[part]}" for part, stems in PARTS.items() for stem in stems]
    (folder / "split.csv").write_text("\n".join(["filestem,split", *rows]))
    return folder / "split.csv"


def write_tables(folder: Path) -> Path:
    """The rows of dataset.csv, part by part, as the authors of one split publish it."""
    for part, stems in PARTS.items():
        name = "valid_data.csv" if part == "validation" else f"{part}_data.csv"
        rows = [f"{stem},{int(stem[:4])},1.0" for stem in stems]
        (folder / name).write_text("\n".join(["filestem,patient_id,cast", *rows]))
    (folder / "dataset.csv").write_text("filestem\n0009_1_01_WRI-L1_M003\n")
    return folder


def write_lists(folder: Path) -> Path:
    """Lists of images, as trainings of detectors read them."""
    for part, stems in PARTS.items():
        name = "val.txt" if part == "validation" else f"{part}.txt"
        lines = [f"./images/{part}/{stem}.png" for stem in stems]
        (folder / name).write_text("\n".join([*lines, lines[0].replace("/", "\\"), ""]))
    return folder


@pytest.mark.parametrize("write", [write_one_file, write_tables, write_lists])
def test_each_published_form_is_read(tmp_path: Path, write) -> None:
    found = read_published_split(write(tmp_path))
    assert by_part(found) == {part: sorted(stems) for part, stems in PARTS.items()}
    assert not found.duplicated().any()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"split.csv": "filestem,fold\na,1\n"}, "split.csv: column split is missing"),
        ({"split.csv": "filestem,split\na,train\nb,dev\n"}, "row 3: split 'dev' must be one of"),
        ({"split.csv": "filestem,split\na,train\n"}, "names no image for validation and test"),
        ({"train.csv": "filestem\na\n", "test.csv": "filestem\nb\n"}, "no list for validation"),
        ({"train.csv": "filestem\na\n", "train.txt": "b\n"}, "train.csv and train.txt both list"),
        (
            {"train.csv": "stem\na\n", "val.txt": "b\n", "test.txt": "c\n"},
            "train.csv: column filestem is missing",
        ),
        (
            {"train.csv": "filestem\n\n ,\n", "val.txt": "b\n", "test.txt": "c\n"},
            "train.csv: a filestem is empty",
        ),
    ],
)
def test_what_is_no_split_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    path = tmp_path / "split.csv" if "split.csv" in files else tmp_path
    with pytest.raises(PedfracError, match=message) as caught:
        read_published_split(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PedfracError, match="nowhere.csv: cannot be read"):
        read_published_split(tmp_path / "nowhere.csv")


# ---- what is shared ---------------------------------------------------------------------------


def test_shared_patients_and_images_are_counted() -> None:
    published = split_of(
        ("1_a", "train"), ("1_b", "test"), ("1_c", "test"), ("1_d", "validation"),
        ("2_a", "train"), ("2_b", "validation"),
        ("3_a", "train"), ("3_a", "test"),
        ("4_a", "test"), ("5_a", "train"), ("6_a", "validation"),
    )  # fmt: skip
    kept, leakage = free_of_leakage(published)
    assert by_part(kept) == {
        "train": ["5_a"], "validation": ["2_b", "6_a"], "test": ["1_b", "1_c", "3_a", "4_a"]
    }  # fmt: skip
    assert leakage.counts() == {
        "given": {"train": 4, "validation": 3, "test": 4},
        "kept": {"train": 1, "validation": 2, "test": 4},
        "left_out": {"train": 3, "validation": 1, "test": 0},
        "patients": 6,
        "shared_patients": 3,
        "test_patients": 3,
        "leaking_patients": 2,
        "leaking_images": 3,
        "repeated_images": 1,
    }


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 5), st.sampled_from(STRICTEST_LAST)),
        min_size=1, unique=True,
    )
)  # fmt: skip
def test_what_is_left_is_a_split_with_all_test_images(rows) -> None:
    published = split_of(*((f"{patient}_{image}", part) for patient, image, part in rows))
    kept, leakage = free_of_leakage(published)
    patients = kept["filestem"].str.split("_").str[0]
    Split(kept.assign(patient_id=patients))
    assert by_part(kept).get("test") == by_part(published).get("test")
    assert set(patients) == {str(patient) for patient, *_ in rows}
    assert leakage.left_out["test"] == 0
    unshared = published.groupby(published["filestem"].str.split("_").str[0])["part"].nunique() == 1
    assert leakage.shared_patients == (~unshared).sum()
    assert unshared.all() == (len(kept) == len(published))
    again, none = free_of_leakage(kept)
    assert again.equals(kept)
    assert (none.shared_patients, none.leaking_images, none.repeated_images) == (0, 0, 0)
