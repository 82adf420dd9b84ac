"""The metrics known of GRAZPEDWRI-DX, recomputed from its real table and 14 of its real images."""

import ast
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from commands import pedfrac

from pedfrac.config.data import CohortConfig, DataConfig, SplitConfig
from pedfrac.data.cohort import Cohort, make_cohort
from pedfrac.data.records import Records, load_records, read_records, save_records
from pedfrac.data.split import Split, SplitReport
from pedfrac.data.splitting import cut_fold, make_split
from pedfrac.errors import PedfracError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ROOT = SHARED / "grazpedwri"
RUIYANGJU = SHARED / "splits" / "ruiyangju.csv"

pytestmark = pytest.mark.skipif(
    not (ROOT / "dataset.csv").exists(), reason=f"the real data are not at {ROOT}"
)

# Images, fractured, patients; then images, fractured, normal without metal.
GROUPS = [
    ("0-1.5y", 123, 89, 54, 123, 89, 34),
    ("1.5-5y", 1155, 819, 453, 1151, 818, 333),
    ("5-10y", 6249, 5070, 1796, 6109, 4939, 1170),
    ("10-15y", 9979, 6342, 3084, 9655, 6051, 3604),
    ("15-19y", 2821, 1230, 987, 2581, 1060, 1521),
]
AGES = CohortConfig().ages


@pytest.fixture(scope="module")
def records() -> Records:
    return read_records(DataConfig(root=str(ROOT), images=False))


@pytest.fixture(scope="module")
def cohort(records: Records) -> Cohort:
    return make_cohort(records, CohortConfig())


@pytest.fixture(scope="module")
def split(cohort: Cohort) -> tuple[Split, SplitReport]:
    return make_split(cohort.table, SplitConfig(), AGES)


# ---- records ----------------------------------------------------------------------------------


def test_every_row_of_the_table_is_usable(records: Records) -> None:
    summary = records.summary()
    assert summary["usable"] == summary["rows"] == 20_327
    assert (summary["patients"], summary["studies"]) == (6_091, 10_699)
    assert (summary["fractured"], summary["metal"]) == (13_550, 708)
    assert records.issues.empty


def test_the_columns_hold_what_is_published(records: Records) -> None:
    table = records.table
    assert table["projection"].value_counts().to_dict() == {1: 10_086, 2: 10_148, 3: 93}
    assert (table["age"].min(), table["age"].max()) == (0.2, 19.0)
    assert table["gender"].value_counts().to_dict() == {"M": 12_040, "F": 8_285, "O": 2}


def test_the_whole_table_survives_saving(records: Records, tmp_path: Path) -> None:
    save_records(records, tmp_path)
    pd.testing.assert_frame_equal(load_records(tmp_path).table, records.table)


def test_boxes_agree_with_the_flags(records: Records) -> None:
    """What the reader checks image by image holds for all published boxes."""
    boxes = pd.read_csv(ROOT / "boxes_all.csv", index_col="image_id")["labels"].map(
        ast.literal_eval
    )
    for class_id, flag, count in ((3, "fracture_visible", 13_550), (4, "metal", 708)):
        boxed = set(boxes.index[[class_id in labels for labels in boxes]])
        assert boxed == set(records.table.loc[records.table[flag], "filestem"])
        assert len(boxed) == count


def test_the_real_images_are_read_and_the_others_listed_by_name() -> None:
    records = read_records(DataConfig(root=str(ROOT), missing="drop"))
    summary = records.summary()
    assert (summary["usable"], summary["dropped"]) == (14, 20_313)
    assert summary["issues"] == {"image-missing": 20_313}
    assert records.issues["filestem"].nunique() == 20_313
    assert (summary["fractured"], summary["normal"], summary["metal"]) == (11, 3, 2)
    assert records.table["width"].between(248, 1449).all()
    assert records.table["height"].between(472, 1697).all()
    assert records.table["sha256"].is_unique
    assert set(records.boxes["filestem"]) <= set(records.table["filestem"])


def test_missing_images_are_an_error_unless_allowed() -> None:
    with pytest.raises(PedfracError, match="20313 of 20327 images are missing"):
        read_records(DataConfig(root=str(ROOT)))
    read_records(DataConfig(root=str(ROOT), missing_allowed=20_313))


def copy_few(folder: Path, images: int = 4) -> list[str]:
    """Copy table, labels and images of a few real images; return their filestems."""
    stems = sorted(path.stem for path in (ROOT / "images").glob("*.png"))[:images]
    labels = Path("folder_structure/yolov5/labels")
    (folder / "images_part1").mkdir()
    (folder / labels).mkdir(parents=True)
    for stem in stems:
        shutil.copyfile(ROOT / "images" / f"{stem}.png", folder / "images_part1" / f"{stem}.png")
        shutil.copyfile(ROOT / labels / f"{stem}.txt", folder / labels / f"{stem}.txt")
    table = pd.read_csv(ROOT / "dataset.csv", dtype=str, keep_default_na=False)
    table[table["filestem"].isin(stems)].to_csv(folder / "dataset.csv", index=False)
    return stems


def test_a_cut_image_and_an_impossible_age_are_named(tmp_path: Path) -> None:
    stems = copy_few(tmp_path)
    image = tmp_path / "images_part1" / f"{stems[0]}.png"
    image.write_bytes(image.read_bytes()[:100_000])
    table = pd.read_csv(tmp_path / "dataset.csv", dtype=str, keep_default_na=False)
    table.loc[table["filestem"] == stems[2], "age"] = "190"
    table.to_csv(tmp_path / "dataset.csv", index=False)
    records = read_records(DataConfig(root=str(tmp_path)))
    assert records.issues[["filestem", "line", "kind", "field", "value"]].values.tolist() == [
        [stems[0], 2, "image-truncated", "image", f"images_part1/{stems[0]}.png"],
        [stems[2], 4, "value", "age", "190"],
    ]
    assert records.table["filestem"].tolist() == [stems[1], stems[3]]


def test_a_renamed_column_is_a_clear_error(tmp_path: Path) -> None:
    text = (ROOT / "dataset.csv").read_text(encoding="utf-8-sig")
    (tmp_path / "dataset.csv").write_text(text.replace("fracture_visible", "fracture", 1))
    with pytest.raises(
        PedfracError, match="'fracture_visible' is missing; column 'fracture' is unknown"
    ):
        read_records(DataConfig(root=str(tmp_path), images=False))


# ---- cohort -----------------------------------------------------------------------------------


def table_of(groups: list[dict]) -> list[tuple]:
    """Return the counts of age groups in the order of ``GROUPS``."""
    return [
        (
            group["name"],
            *(group["before"][name] for name in ("images", "fractured", "patients")),
            *(group["after"][name] for name in ("images", "fractured", "normal")),
        )
        for group in groups
    ]


def test_age_groups_before_and_after_metal(cohort: Cohort) -> None:
    assert table_of(cohort.groups) == GROUPS


def test_metal_is_the_one_default_exclusion(cohort: Cohort) -> None:
    assert [(step["step"], step["removed"]) for step in cohort.steps] == [
        ("usable records", 0),
        ("age within bounds", 0),
        ("without metal", 708),
    ]


def test_the_one_image_of_exactly_nineteen_years_is_in_the_last_group(records: Records) -> None:
    oldest = records.table[records.table["age"] == 19.0]
    assert AGES.assign(oldest["age"]).tolist() == [4]


def test_some_patients_grow_out_of_their_group(records: Records) -> None:
    groups = pd.Series(AGES.assign(records.table["age"])).groupby(records.table["patient_id"])
    assert (groups.nunique() > 1).sum() == 281


# ---- split ------------------------------------------------------------------------------------


def test_the_test_set_is_balanced_in_each_year_with_one_image_a_patient(
    cohort: Cohort, split: tuple[Split, SplitReport]
) -> None:
    table = split[0].table.merge(cohort.table[["filestem", "age", "fracture_visible"]])
    test = table[table["part"] == "test"]
    assert test["patient_id"].is_unique
    years = test["age"].astype(int).clip(upper=18)
    by_year = test.groupby(years)["fracture_visible"].agg(["sum", "size"])
    assert (by_year["size"] == 2 * by_year["sum"]).all()
    unfilled = {year["from"]: year["pairs"] for year in split[1]["test_intervals"]["unfilled"]}
    assert by_year["sum"].to_dict() == dict.fromkeys(range(19), 10) | unfilled
    # So young and so old there are too few images of one kind.
    assert set(unfilled) == {0, 18}


def test_no_patient_is_shared(split: tuple[Split, SplitReport]) -> None:
    table = split[0].table
    used = table[table["part"] != "left_out"]
    assert used.groupby("patient_id")["part"].nunique().max() == 1
    assert set(split[1]["disjoint"]["shared"].values()) == {0}
    assert sum(split[1]["disjoint"]["patients"].values()) == table["patient_id"].nunique() == 6_030


def test_every_age_group_can_be_trained_and_validated(split: tuple[Split, SplitReport]) -> None:
    for group in split[1]["groups"]:
        for part in ("train", "validation", "test"):
            assert group[part]["fractured"] > 0
            assert group[part]["normal"] > 0


def test_five_folds_hold_out_every_image_once_and_can_train_every_age_group(
    cohort: Cohort, split: tuple[Split, SplitReport]
) -> None:
    config, held_out = SplitConfig(folds=5), []
    for fold in range(5):
        made, report = cut_fold(split[0], cohort.table, config, AGES, fold)
        held_out.extend(made.images("test"))
        assert set(report["disjoint"]["shared"].values()) == {0}
        for group in report["groups"]:
            for part in ("train", "validation", "test"):
                assert 0 < group[part]["fractured"] < group[part]["images"]
    tested = split[0].table.loc[split[0].table["place"] == "test", "patient_id"]
    rest = cohort.table[~cohort.table["patient_id"].isin(tested)]
    assert sorted(held_out) == sorted(rest["filestem"])
    # the youngest group has 81 images to judge instead of the test set's few
    assert (AGES.assign(rest["age"]) == 0).sum() == 81


def test_a_second_run_gives_the_same_split(
    cohort: Cohort, split: tuple[Split, SplitReport]
) -> None:
    shuffled = cohort.table.sample(frac=1, random_state=0)
    again, report = make_split(shuffled, SplitConfig(), AGES)
    pd.testing.assert_frame_equal(again.table, split[0].table)
    assert json.dumps(report, sort_keys=True) == json.dumps(split[1], sort_keys=True)


def test_new_patients_move_nobody_who_was_placed(cohort: Cohort) -> None:
    earlier = cohort.table[cohort.table["patient_id"] % 10 != 0]
    config = SplitConfig()
    first, _ = make_split(earlier, config, AGES)
    second, report = make_split(cohort.table, config, AGES, first.table)
    merged = first.table.merge(second.table, on="filestem", suffixes=("", "_later"))
    assert (merged["part"] == merged["part_later"]).all()
    assert len(merged) == len(earlier)
    assert report["previous"]["moved_patients"] == 0
    assert report["previous"]["new_patients"] == 6_030 - earlier["patient_id"].nunique()


def test_without_a_previous_split_few_are_displaced(cohort: Cohort) -> None:
    whole, _ = make_split(cohort.table, SplitConfig(), AGES)
    place = whole.table.drop_duplicates("patient_id").set_index("patient_id")["place"]
    for patient in (
        1,
        2_000,
        4_000,
        int(whole.table.query("place == 'test'")["patient_id"].iloc[0]),
    ):
        smaller = cohort.table[cohort.table["patient_id"] != patient]
        other, _ = make_split(smaller, SplitConfig(), AGES)
        now = other.table.drop_duplicates("patient_id").set_index("patient_id")["place"]
        assert (place[now.index] != now).sum() <= 20


@pytest.mark.skipif(not RUIYANGJU.exists(), reason=f"the split is not at {RUIYANGJU}")
def test_the_split_most_used_in_papers_is_accepted(records: Records, cohort: Cohort) -> None:
    config = SplitConfig(file=str(RUIYANGJU))
    everything = make_cohort(records, CohortConfig(exclude_metal=False)).table
    split, report = make_split(everything, config, AGES)
    published = {"train": 14_204, "validation": 4_094, "test": 2_029}
    assert report["file"]["images"] == report["file"]["images_in_cohort"] == published
    assert {part: len(split.images(part)) for part in published} == published
    _, report = make_split(cohort.table, config, AGES)
    assert report["file"]["images"] == published
    assert report["file"]["images_not_in_cohort"] == 708
    assert sum(report["file"]["images_in_cohort"].values()) == 19_619
    assert set(report["disjoint"]["shared"].values()) == {0}


# ---- the command line -------------------------------------------------------------------------


def printed(folder: Path, *arguments: object) -> dict:
    """Return the one JSON object that a command prints; all else must be on stderr."""
    done = pedfrac(folder, *arguments, "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("\n") == 1 and "records/" in done.stderr
    return json.loads(done.stdout)


def test_the_records_command_prints_the_known_counts(tmp_path: Path) -> None:
    """Only 14 images are there: they are usable, the others named, and all rows are counted."""
    result = printed(tmp_path, "records", "--data", ROOT, "--missing", "drop")
    assert (result["rows"], result["usable"], result["dropped"]) == (20_327, 14, 20_313)
    assert len({issue["filestem"] for issue in result["issues"]}) == 20_313
    assert {issue["kind"] for issue in result["issues"]} == {"image-missing"}
    listed = result["listed"]
    assert (listed["images"], listed["patients"], listed["studies"]) == (20_327, 6_091, 10_699)
    assert (listed["fractured"], listed["metal"]) == (13_550, 708)
    assert table_of(listed["groups"]) == GROUPS


@pytest.mark.skipif(not RUIYANGJU.exists(), reason=f"the split is not at {RUIYANGJU}")
def test_the_split_command_accepts_the_split_most_used_in_papers(tmp_path: Path) -> None:
    """It names 708 images with metal, which the cohort leaves out; else its parts are whole."""
    result = printed(tmp_path, "split", "--data", ROOT, "--no-images", "--file", RUIYANGJU)
    file, parts = result["report"]["file"], result["report"]["parts"]
    assert file["images"] == {"train": 14_204, "validation": 4_094, "test": 2_029}
    assert file["images_in_cohort"] == {name: parts[name]["images"] for name in file["images"]}
    assert (file["images_not_in_cohort"], file["cohort_not_named"]) == (708, 0)
    assert result["patients_in_two_parts"] == 0
    assert set(result["report"]["disjoint"]["shared"].values()) == {0}
    assert sum(result["report"]["disjoint"]["patients"].values()) == 6_030
