"""No patient is shared, whatever the cohort; the test set is balanced; an old split is kept."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pedfrac.age_groups import AgeGroups
from pedfrac.config.data import SplitConfig
from pedfrac.data.split import (
    PARTS,
    PLACES,
    TEST_PATIENT,
    Split,
    SplitReport,
    load_split,
    read_split_table,
    save_split,
)
from pedfrac.data.split_file import NOT_NAMED, read_split_file
from pedfrac.data.splitting import BALANCED, cut_fold, make_split, validation_count
from pedfrac.errors import PedfracError

AGES = AgeGroups((0, 1.5, 5, 10, 15, 19))
YEARS = 19


def image(patient: int, number: int, age: float, fractured: bool) -> dict[str, object]:
    return {
        "filestem": f"{patient:04d}_{number:010d}_01_WRI-L1_M{int(age):03d}",
        "patient_id": patient,
        "age": age,
        "fracture_visible": fractured,
    }


def random_cohort(patients: int, seed: int = 0, youngest: float = 0.2) -> pd.DataFrame:
    """A cohort of so many patients with 1 to 6 images, some of them over several years."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(1, patients + 1):
        age = rng.uniform(youngest, 19)
        for number in range(rng.integers(1, 7)):
            now = min(round(age + rng.choice([0, 0, 0.3, 2]), 1), 19.0)
            rows.append(image(patient, number, now, bool(rng.random() < 0.6)))
    return pd.DataFrame(rows)


# Few ages and many images per patient: patients who span years and labels, and crowded years.
images = st.lists(
    st.tuples(
        st.integers(1, 25), st.sampled_from([0.2, 0.9, 1.5, 4.0, 4.9, 18.0, 19.0]), st.booleans()
    ),
    min_size=15,
    max_size=80,
).map(lambda rows: pd.DataFrame([image(p, n, a, f) for n, (p, a, f) in enumerate(rows)]))
configs = st.builds(
    lambda folded, **rest: SplitConfig(**folded, **rest),
    test_per_year=st.integers(1, 3),
    test_images_per_patient=st.integers(1, 3),
    validation_fraction=st.floats(0.05, 0.9),
    folded=st.just({})
    | st.fixed_dictionaries({"folds": st.integers(2, 4), "fold": st.integers(0, 1)}),
    balance_training=st.booleans(),
    seed=st.integers(0, 3),
)
relaxed = settings(max_examples=60, deadline=None)


def split_or_none(
    cohort: pd.DataFrame, config: SplitConfig, previous: pd.DataFrame | None = None
) -> tuple[Split, SplitReport] | None:
    """The split, or None where a cohort this small leaves nobody for training or validation."""
    try:
        return make_split(cohort, config, AGES, previous)
    except PedfracError as error:
        assert "no image is left for" in str(error)
        return None


def with_images(split: Split, cohort: pd.DataFrame) -> pd.DataFrame:
    return split.table.merge(cohort.drop(columns="patient_id"), on="filestem")


def years(ages: pd.Series) -> pd.Series:
    return np.floor(ages).clip(upper=18).astype(int)


def places(split: Split) -> dict[int, str]:
    table = split.table.drop_duplicates("patient_id")
    return dict(zip(table["patient_id"], table["place"], strict=True))


# ---- the type that cannot hold a leak ---------------------------------------------------------


def table_of(*rows: tuple[str, int, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["filestem", "patient_id", "part"])


@given(
    st.dictionaries(
        st.integers(0, 40), st.tuples(st.integers(0, 8), st.sampled_from(PARTS)), min_size=1
    )
)
def test_a_split_exists_exactly_where_no_patient_is_shared(assigned) -> None:
    table = table_of(*((f"image{n}", patient, part) for n, (patient, part) in assigned.items()))
    used = table[table["part"] != "left_out"]
    shared = used.groupby("patient_id")["part"].nunique().gt(1).any()
    if shared:
        with pytest.raises(PedfracError, match="patients are in more than one part"):
            Split(table)
    else:
        split = Split(table)
        named = [stem for part in PARTS for stem in split.images(part)]
        assert sorted(named) == sorted(table["filestem"])


def test_the_refusal_names_patients_and_images() -> None:
    with pytest.raises(
        PedfracError, match=r"1 patients .* a of patient 7 in train, b of patient 7"
    ):
        Split(table_of(("a", 7, "train"), ("b", 7, "test"), ("c", 8, "test")))


def test_left_out_images_of_a_test_patient_are_no_leak() -> None:
    split = Split(table_of(("a", 7, "test"), ("b", 7, "left_out")))
    assert split.images("left_out") == ["b"]


def test_unknown_parts_repeated_images_and_missing_columns_are_refused() -> None:
    with pytest.raises(PedfracError, match="part 'valid' of a must be one of train, validation"):
        Split(table_of(("a", 7, "valid")))
    with pytest.raises(PedfracError, match="named more than once: a"):
        Split(table_of(("a", 7, "test"), ("a", 7, "test")))
    with pytest.raises(PedfracError, match="patient_id is missing"):
        Split(table_of(("a", 7, "test")).drop(columns="patient_id"))
    with pytest.raises(PedfracError, match="'tests' must be one of"):
        Split(table_of(("a", 7, "test"))).images("tests")


# ---- properties of every split by rule --------------------------------------------------------


@relaxed
@given(images, configs)
def test_every_image_has_one_part_and_every_patient_one_place(cohort, config) -> None:
    made = split_or_none(cohort, config)
    if made is None:
        return
    split, report = made
    assert split.table["filestem"].tolist() == sorted(cohort["filestem"])
    assert split.table.groupby("patient_id")["place"].nunique().max() == 1
    used = split.table[split.table["part"] != "left_out"]
    assert (used["part"] == used["place"]).all()
    assert ((split.table["reason"] != "") == (split.table["part"] == "left_out")).all()
    assert set(report["disjoint"]["shared"].values()) == {0}


@relaxed
@given(images, configs)
def test_the_test_set_is_balanced_small_and_spread(cohort, config) -> None:
    made = split_or_none(cohort, config)
    if made is None:
        return
    table = with_images(made[0], cohort)
    test = table[table["part"] == "test"]
    if len(test):
        assert test["patient_id"].value_counts().max() <= config.test_images_per_patient
    for _, images_of_year in test.groupby(years(test["age"])):
        fractured = int(images_of_year["fracture_visible"].sum())
        assert len(images_of_year) == 2 * fractured <= 2 * config.test_per_year


@relaxed
@given(images, configs, st.randoms())
def test_neither_order_nor_repetition_changes_a_split(cohort, config, random) -> None:
    made = split_or_none(cohort, config)
    order = list(cohort.index)
    random.shuffle(order)
    again = split_or_none(cohort.loc[order], config)
    assert (made is None) == (again is None)
    if made is not None and again is not None:
        pd.testing.assert_frame_equal(made[0].table, again[0].table)
        assert made[1] == again[1]


@relaxed
@given(images, images, configs)
def test_with_the_previous_split_nobody_moves(cohort, more, config) -> None:
    """Old patients may gain images, lose images or vanish; new patients may come."""
    made = split_or_none(cohort, config)
    if made is None:
        return
    more = more.assign(filestem="9" + more["filestem"])
    more["patient_id"] += 12  # about half of them are patients of the first cohort
    kept = cohort.sample(frac=0.8, random_state=0)
    later = split_or_none(pd.concat([kept, more], ignore_index=True), config, made[0].table)
    if later is None:
        return
    before, after = places(made[0]), places(later[0])
    assert {p: before[p] for p in before if p in after} == {
        p: after[p] for p in after if p in before
    }
    still_there = set(made[0].images("test")) & set(kept["filestem"])
    assert still_there <= set(later[0].images("test"))
    old_images = later[0].table[later[0].table["patient_id"].isin(before)]
    assert set(old_images.loc[old_images["part"] == "test", "filestem"]) == still_there
    folds = [
        s.table.drop_duplicates("patient_id").set_index("patient_id")["fold"]
        for s in (made[0], later[0])
    ]
    both = folds[0].index.intersection(folds[1].index)
    assert (folds[0][both] == folds[1][both]).all()
    assert later[1]["previous"]["moved_patients"] == 0
    assert later[1]["previous"]["kept_patients"] == len(set(before) & set(after))


@relaxed
@given(images, images, configs)
def test_new_test_images_keep_the_balance(cohort, more, config) -> None:
    made = split_or_none(cohort, config)
    if made is None:
        return
    more = more.assign(filestem="9" + more["filestem"])
    more["patient_id"] += 100
    everyone = pd.concat([cohort, more], ignore_index=True)
    later = split_or_none(everyone, config, made[0].table)
    if later is None:
        return
    table = with_images(later[0], everyone)
    test = table[table["part"] == "test"]
    for _, images_of_year in test.groupby(years(test["age"])):
        assert images_of_year["fracture_visible"].mean() == 0.5
        assert len(images_of_year) <= 2 * config.test_per_year


# ---- stability without a previous split -------------------------------------------------------


def test_without_the_previous_split_a_new_patient_displaces_few() -> None:
    """A test set of fixed size cannot be drawn independently of who else is there: whoever is
    drawn takes somebody's seat. The cascade is short: a seat lost, a seat won, and the strata
    of those two each shift by one.
    """
    config = SplitConfig(test_per_year=3)
    everyone = random_cohort(600)
    whole = places(make_split(everyone, config, AGES)[0])
    moved = []
    for patient in range(1, 601, 20):
        without = make_split(everyone[everyone["patient_id"] != patient], config, AGES)[0]
        moved.append(sum(whole[p] != place for p, place in places(without).items()))
    assert np.median(moved) <= 2
    assert max(moved) <= 8  # of 599


# ---- the rules, one by one --------------------------------------------------------------------


def pairs_of_images(count: int, age: float = 7.0, first: int = 1) -> pd.DataFrame:
    """One image each of so many patients with and as many without fracture, of one age."""
    return pd.DataFrame([image(first + n, 0, age, n % 2 == 0) for n in range(2 * count)])


def test_the_last_bound_belongs_to_the_last_year() -> None:
    cohort = pd.concat([pairs_of_images(3, 18.2), pairs_of_images(3, 19.0, first=101)])
    split, report = make_split(cohort, SplitConfig(test_per_year=4), AGES)
    assert len(split.images("test")) == 8
    assert report["test_intervals"]["unfilled"] == []


def test_a_year_short_of_pairs_is_reported() -> None:
    cohort = pd.concat([pairs_of_images(20), pairs_of_images(3, 4.5, first=101)])
    cohort = cohort[~cohort["patient_id"].isin([101, 103])]
    _, report = make_split(cohort, SplitConfig(test_per_year=2), AGES)
    assert report["test_intervals"] == {
        "pairs_wanted": 2,
        "unfilled": [
            {
                "from": 4,
                "to": 5,
                "pairs_wanted": 2,
                "pairs": 1,
                "fractured": 1,
                "normal": 1,
                "available_fractured_patients": 1,
                "available_normal_patients": 3,
            }
        ],
    }


def test_a_patient_with_both_kinds_of_image_goes_where_the_need_is() -> None:
    normal_too = [image(1, 1, 7.0, False), image(2, 1, 7.0, False)]
    fractured = [image(patient, 0, 7.0, True) for patient in range(1, 9)]
    split, _ = make_split(pd.DataFrame(fractured + normal_too), SplitConfig(test_per_year=2), AGES)
    assert {normal_too[0]["filestem"], normal_too[1]["filestem"]} <= set(split.images("test"))
    assert len(split.images("test")) == 4


def test_a_image_without_a_partner_does_not_test() -> None:
    """One patient alone in a year cannot be both halves of a pair, and goes back."""
    alone = pd.DataFrame([image(101, 0, 4.2, True), image(101, 1, 4.3, False)])
    cohort = pd.concat([pairs_of_images(10), alone])
    split, report = make_split(cohort, SplitConfig(test_per_year=2), AGES)
    assert places(split)[101] in ("train", "validation")
    assert report["test_intervals"]["unfilled"][0]["pairs"] == 0


def test_a_vanished_test_image_is_replaced_by_a_new_patient_of_its_kind() -> None:
    cohort = pairs_of_images(10)
    config = SplitConfig(test_per_year=2)
    first, _ = make_split(cohort, config, AGES)
    gone = next(stem for stem in first.images("test") if int(stem[:4]) % 2)  # a fractured one
    smaller = cohort[cohort["filestem"] != gone]
    second, report = make_split(smaller, config, AGES, first.table)
    assert (len(second.images("test")), len(report["test_intervals"]["unfilled"])) == (3, 1)
    newcomers = pd.concat([smaller, pairs_of_images(3, first=101)])
    third, report = make_split(newcomers, config, AGES, second.table)
    (new,) = set(third.images("test")) - set(second.images("test"))
    assert int(new[:4]) in (101, 103, 105)
    assert report["test_intervals"]["unfilled"] == []


def test_other_images_of_test_patients_are_left_out_with_the_reason() -> None:
    split, report = make_split(random_cohort(300), SplitConfig(test_per_year=3), AGES)
    tests = split.table[split.table["place"] == "test"]
    rest = tests[tests["part"] != "test"]
    assert len(rest) > 0
    assert set(rest["reason"]) == {TEST_PATIENT}
    assert report["left_out"] == {TEST_PATIENT: len(rest)}


@pytest.mark.parametrize(
    ("patients", "fraction", "validate"),
    [(0, 0.15, 0), (1, 0.15, 0), (1, 0.6, 1), (2, 0.15, 1), (2, 0.95, 1), (10, 0.15, 2),
     (100, 0.15, 15)],
)  # fmt: skip
def test_each_stratum_gives_its_share_to_validation(patients, fraction, validate) -> None:
    assert validation_count(patients, fraction) == validate


def test_validation_has_the_same_mix_of_ages_and_labels_as_training() -> None:
    cohort = random_cohort(1500)
    split, _ = make_split(cohort, SplitConfig(test_per_year=2, validation_fraction=0.2), AGES)
    table = with_images(split, cohort)
    table = table[table["place"].isin(["train", "validation"])]
    table["group"] = AGES.assign(table["age"])
    patients = table.groupby("patient_id").agg(
        group=("group", "min"), fracture=("fracture_visible", "any"), place=("place", "first")
    )
    for _, stratum in patients.groupby(["group", "fracture"]):
        validating = (stratum["place"] == "validation").sum()
        assert validating == validation_count(len(stratum), 0.2)


def test_validation_keeps_its_share_as_patients_come() -> None:
    cohort, config = random_cohort(900), SplitConfig(test_per_year=2)
    first, _ = make_split(cohort[cohort["patient_id"] <= 300], config, AGES)
    grown, _ = make_split(cohort, config, AGES, first.table)
    counts = grown.table.drop_duplicates("patient_id")["place"].value_counts()
    share = counts["validation"] / (counts["validation"] + counts["train"])
    assert share == pytest.approx(config.validation_fraction, abs=0.01)


def test_folds_are_even_and_each_validates_once() -> None:
    cohort = random_cohort(400)
    splits = [
        make_split(cohort, SplitConfig(test_per_year=2, folds=4, fold=fold), AGES)[0]
        for fold in range(4)
    ]
    assert len({tuple(split.images("test")) for split in splits}) == 1
    validated = [stem for split in splits for stem in split.images("validation")]
    assert sorted(validated) == sorted(set(validated))
    assert set(validated) == set(splits[0].images("train")) | set(splits[0].images("validation"))
    sizes = splits[0].table.drop_duplicates("patient_id")["fold"].value_counts()
    assert set(sizes.index) == {-1, 0, 1, 2, 3}
    assert sizes.drop(-1).max() - sizes.drop(-1).min() <= 1


@relaxed
@given(images, st.integers(2, 4), st.booleans(), st.integers(0, 3))
def test_every_image_outside_the_test_set_is_held_out_once(cohort, folds, balance, seed) -> None:
    config = SplitConfig(test_per_year=1, folds=folds, balance_training=balance, seed=seed)
    made = split_or_none(cohort, config)
    if made is None:
        return
    whole = made[0]
    try:
        cut = [cut_fold(whole, cohort, config, AGES, fold)[0] for fold in range(folds)]
    except PedfracError as error:
        assert "cannot be cut into" in str(error)
        return
    tested = set(whole.table.loc[whole.table["place"] == "test", "patient_id"])
    rest = cohort.loc[~cohort["patient_id"].isin(tested), "filestem"]
    assert sorted(stem for fold in cut for stem in fold.images("test")) == sorted(rest)
    owner = cohort.set_index("filestem")["patient_id"]
    held_out = [set(owner[fold.images("test")]) for fold in cut]
    assert sum(map(len, held_out)) == len(set.union(*held_out))
    for fold, patients in zip(cut, held_out, strict=True):
        seen = set(owner[fold.images("train") + fold.images("validation")])
        assert not seen & patients and not seen & tested


def test_folds_held_out_in_turn_leave_the_split_of_the_bundle_as_it_is() -> None:
    cohort = random_cohort(200)
    plain, _ = make_split(cohort, SplitConfig(test_per_year=2), AGES)
    config = SplitConfig(test_per_year=2, folds=3)
    pd.testing.assert_frame_equal(make_split(cohort, config, AGES)[0].table, plain.table)
    fold, report = cut_fold(plain, cohort, config, AGES, 1)
    assert (report["source"], report["fold"]) == ("fold", 1)
    counts = fold.table.drop_duplicates("patient_id")["place"].value_counts()
    assert counts["test"] == pytest.approx(counts[list(PLACES)].sum() / 3, abs=1)


def test_images_that_a_split_file_does_not_name_are_held_out_of_no_fold(tmp_path: Path) -> None:
    cohort = random_cohort(60)
    stems = sorted(cohort["filestem"])
    owner = cohort.set_index("filestem")["patient_id"]
    parts = {stem: ("test", "train", "valid", "")[owner[stem] % 4] for stem in stems}
    lines = [f"{stem},{part}" for stem, part in parts.items() if part]
    (tmp_path / "s.csv").write_text("\n".join(["filestem,split", *lines]))
    config = SplitConfig(file=str(tmp_path / "s.csv"), folds=3)
    whole, _ = make_split(cohort, config, AGES)
    held_out = [
        stem
        for fold in range(3)
        for stem in cut_fold(whole, cohort, config, AGES, fold)[0].images("test")
    ]
    assert sorted(held_out) == [stem for stem in stems if parts[stem] in ("train", "valid")]


def test_changing_the_fold_moves_validation_only() -> None:
    cohort = random_cohort(200)
    first, _ = make_split(cohort, SplitConfig(test_per_year=1, folds=3, fold=0), AGES)
    second, report = make_split(
        cohort, SplitConfig(test_per_year=1, folds=3, fold=1), AGES, first.table
    )
    assert first.images("test") == second.images("test")
    assert (first.table["fold"] == second.table["fold"]).all()
    assert report["previous"]["moved_patients"] > 0


def test_a_previous_split_without_folds_is_dealt_into_them() -> None:
    cohort = random_cohort(200)
    first, _ = make_split(cohort, SplitConfig(test_per_year=1), AGES)
    folded = SplitConfig(test_per_year=1, folds=3, fold=0)
    second, _ = make_split(cohort, folded, AGES, first.table)
    assert first.images("test") == second.images("test")
    dealt = second.table.loc[second.table["place"] != "test", "fold"]
    assert set(dealt) == {0, 1, 2}


def test_a_previous_split_with_more_folds_is_refused() -> None:
    cohort = random_cohort(200)
    first, _ = make_split(cohort, SplitConfig(test_per_year=1, folds=5, fold=0), AGES)
    with pytest.raises(PedfracError, match=r"5 folds, but split\.folds is 3"):
        make_split(cohort, SplitConfig(test_per_year=1, folds=3, fold=0), AGES, first.table)


def test_a_leaking_previous_split_is_refused() -> None:
    cohort = random_cohort(50)
    leaking = cohort.assign(part=np.where(np.arange(len(cohort)) % 2, "train", "validation"))
    with pytest.raises(PedfracError, match="more than one part"):
        make_split(cohort, SplitConfig(test_per_year=1), AGES, leaking)


def test_a_patient_stays_in_the_test_set_after_its_test_image_has_vanished() -> None:
    cohort = random_cohort(200)
    config = SplitConfig(test_per_year=1)
    first, _ = make_split(cohort, config, AGES)
    tests = first.table[first.table["place"] == "test"]
    patient = tests["patient_id"].value_counts().index[0]
    gone = tests.loc[(tests["patient_id"] == patient) & (tests["part"] == "test"), "filestem"]
    smaller = cohort[~cohort["filestem"].isin(gone)]
    second, report = make_split(smaller, config, AGES, first.table)
    assert report["previous"]["vanished_test_images"] == 1
    third, _ = make_split(smaller, config, AGES, second.table)
    for split in (second, third):
        theirs = split.table[split.table["patient_id"] == patient]
        assert set(theirs["part"]) == {"left_out"}
        assert set(theirs["place"]) == {"test"}


def test_balanced_training_keeps_pairs_in_each_year_and_touches_nothing_else() -> None:
    cohort = random_cohort(400)
    plain, _ = make_split(cohort, SplitConfig(test_per_year=2), AGES)
    config = SplitConfig(test_per_year=2, balance_training=True)
    split, report = make_split(cohort, config, AGES)
    table = with_images(split, cohort)
    train = table[table["part"] == "train"]
    counts = train.groupby([years(train["age"]), "fracture_visible"]).size().unstack()
    assert (counts[True] == counts[False]).all()
    for part in ("test", "validation"):
        assert split.images(part) == plain.images(part)
    surplus = table[table["reason"] == BALANCED]
    assert len(surplus) == report["left_out"][BALANCED] > 0
    assert len(train) + len(surplus) == len(plain.images("train"))
    again, _ = make_split(cohort, config, AGES, split.table)
    pd.testing.assert_frame_equal(again.table, split.table)


def test_another_seed_is_another_split() -> None:
    cohort = random_cohort(200)
    one, two = (make_split(cohort, SplitConfig(test_per_year=2, seed=s), AGES)[0] for s in (0, 1))
    assert one.images("test") != two.images("test")
    assert one.images("validation") != two.images("validation")


def test_draws_do_not_change_between_versions_or_machines() -> None:
    """Frozen: a change would put old test patients into training wherever no split is kept."""
    split, _ = make_split(pairs_of_images(20), SplitConfig(test_per_year=3), AGES)
    drawn = {
        part: [int(stem[:4]) for stem in split.images(part)] for part in ("test", "validation")
    }
    assert drawn == {
        "test": [5, 15, 18, 30, 31, 34],
        "validation": [11, 13, 19, 22, 24, 40],
    }


def test_a_cohort_that_leaves_nobody_to_train_is_an_error() -> None:
    with pytest.raises(PedfracError, match=r"no image is left for train .*lower split\.test_per_y"):
        make_split(pairs_of_images(5), SplitConfig(test_per_year=50), AGES)


def test_ages_outside_the_bounds_are_an_error() -> None:
    with pytest.raises(PedfracError, match="1 images lie outside the ages 0 to 19"):
        make_split(pd.DataFrame([image(1, 0, 19.5, True)]), SplitConfig(), AGES)


# ---- a split made elsewhere -------------------------------------------------------------------


def write_split_file(path: Path, rows: list[tuple[str, str]]) -> SplitConfig:
    path.write_text("\n".join(["filestem,split", *(",".join(row) for row in rows)]) + "\n")
    return SplitConfig(file=str(path))


def foreign_parts(cohort: pd.DataFrame) -> list[tuple[str, str]]:
    names = ("train", "valid", "test", "train")
    return [
        (stem, names[patient % 4])
        for stem, patient in zip(cohort["filestem"], cohort["patient_id"], strict=True)
    ]


def test_a_split_file_is_followed_and_counted(tmp_path: Path) -> None:
    cohort = random_cohort(40)
    rows = foreign_parts(cohort)
    config = write_split_file(tmp_path / "s.csv", [*rows[3:], ("0999_1_01_WRI-L1_M003", "val")])
    split, report = make_split(cohort, config, AGES)
    expected = {stem: part.replace("valid", "validation") for stem, part in rows[3:]}
    named = split.table[split.table["part"] != "left_out"]
    assert dict(zip(named["filestem"], named["part"], strict=True)) == expected
    left_out = split.table[split.table["part"] == "left_out"]
    assert left_out["filestem"].tolist() == sorted(stem for stem, _ in rows[:3])
    assert set(left_out["reason"]) == {NOT_NAMED}
    assert report["file"]["images_not_in_cohort"] == 1
    assert report["file"]["not_in_cohort_such_as"] == ["0999_1_01_WRI-L1_M003"]
    assert report["file"]["cohort_not_named"] == 3
    assert report["file"]["not_named_such_as"] == left_out["filestem"].tolist()
    assert sum(report["file"]["images"].values()) == len(rows) - 2
    assert sum(report["file"]["images_in_cohort"].values()) == len(rows) - 3


def test_a_split_file_that_shares_a_patient_is_refused(tmp_path: Path) -> None:
    cohort = random_cohort(40)
    rows = foreign_parts(cohort)
    outside = [("0999_1_01_WRI-L1_M003", "train"), ("0999_2_01_WRI-L1_M003", "test")]
    config = write_split_file(tmp_path / "s.csv", rows + outside)
    with pytest.raises(PedfracError, match=r"s\.csv: is no split by patient: .*patient 0999"):
        make_split(cohort, config, AGES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filestem,part\na,train\n", "column split is missing"),
        ("filestem,split\na,train\nb,dev\n", "line 3: split 'dev' must be one of train, valid"),
        ("filestem,split\na,train\na,test\n", "line 3: a is named on line 2 already"),
        ("filestem,split\n,train\n", "line 2: the filestem is empty"),
        ("filestem,split\na,\n", "line 2: split '' must be one of"),
        ("filestem,split\na\n", "line 2: 1 cells, but the header has 2"),
        ("filestem,split\n", "holds no rows"),
        ("", "column filestem, split is missing, found none"),
    ],
)
def test_a_malformed_split_file_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(PedfracError, match=message):
        read_split_file(path)


def test_a_missing_or_binary_split_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PedfracError, match="cannot be read"):
        read_split_file(tmp_path / "s.csv")
    (tmp_path / "s.csv").write_bytes(b"filestem,split\n\xff\xfe,train\n")
    with pytest.raises(PedfracError, match="is not UTF-8 .*; save it as CSV in UTF-8"):
        read_split_file(tmp_path / "s.csv")


# ---- on disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"folds": 3, "fold": 0}, {"balance_training": True}])
def test_a_split_survives_saving_exactly(tmp_path: Path, options: dict) -> None:
    split, report = make_split(random_cohort(200), SplitConfig(test_per_year=2, **options), AGES)
    save_split(split, report, tmp_path)
    pd.testing.assert_frame_equal(load_split(tmp_path).table, split.table)
    first = (tmp_path / "split.csv").read_bytes(), (tmp_path / "split.json").read_bytes()
    save_split(load_split(tmp_path), report, tmp_path)
    assert first == ((tmp_path / "split.csv").read_bytes(), (tmp_path / "split.json").read_bytes())


def test_a_split_on_disk_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    split, report = make_split(random_cohort(200), SplitConfig(test_per_year=2), AGES)
    save_split(split, report, tmp_path)
    path = tmp_path / "split.csv"
    path.write_text(path.read_text().replace(",left_out,", ",train,"))
    with pytest.raises(PedfracError, match="more than one part"):
        load_split(tmp_path)


def test_a_file_that_is_no_split_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    with pytest.raises(PedfracError, match="cannot be read"):
        read_split_table(path)
    path.write_text("filestem,split\na,train\n")
    with pytest.raises(PedfracError, match=r"column patient_id, .* is missing; is it a split\.csv"):
        read_split_table(path)
