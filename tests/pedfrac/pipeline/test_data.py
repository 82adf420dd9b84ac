"""Data known by what it is, not by its place: a link that leads to the next release."""

import shutil

import pandas as pd
import pytest

from pedfrac.config.phantoms import PhantomConfig
from pedfrac.config.retrain import RetrainConfig
from pedfrac.data.split import load_split
from pedfrac.phantoms.dataset import write_phantoms
from pedfrac.pipeline.data import read_records, select_cohort, split_patients
from pedfrac.pipeline.keys import store_of

CHANGED = 14  # images of a release that the other lacks


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """All images that any release has, and the rows of those without metal, which all take part."""
    folder = tmp_path_factory.mktemp("drawn")
    write_phantoms(folder, PhantomConfig(images=240, scale=0.15, workers=1))
    rows = pd.read_csv(folder / "dataset.csv", dtype=str, keep_default_na=False)
    return folder, rows[rows["metal"] != "1"].reset_index(drop=True)


@pytest.fixture
def releases(drawn, tmp_path):
    """Write releases of the data set; ``current`` is turned to the one that is split."""
    folder, _ = drawn

    def split_of(name, rows, **changes):
        root = tmp_path / name
        if not root.exists():
            shutil.copytree(folder, root)
            rows.to_csv(root / "dataset.csv", index=False)
        (tmp_path / "current").unlink(missing_ok=True)
        (tmp_path / "current").symlink_to(root)
        given = {
            "data": {"root": str(tmp_path / "current")},
            "artifacts": str(tmp_path / "artifacts"),
            "split": {"test_per_year": 1} | changes,
        }
        config = RetrainConfig.model_validate(given)
        key = split_patients(config, select_cohort(config, read_records(config)))
        return load_split(store_of(config).get(key).path).table

    return split_of


def places(table, part):
    return set(table.loc[table["part"] == part, "patient_id"])


def test_a_link_that_leads_to_the_next_release_moves_no_test_patient(drawn, releases, caplog):
    rows = drawn[1]
    first = releases("release1", rows.iloc[CHANGED:])
    tested = first.loc[first["part"] == "test", "filestem"]
    gone = rows["filestem"].isin(tested.head(3)) | (rows.index >= len(rows) - CHANGED + 3)
    assert gone.sum() == CHANGED
    caplog.clear()
    second = releases("release2", rows[~gone])
    assert len(set(second["filestem"]) - set(first["filestem"])) == CHANGED
    learned = places(second, "train") | places(second, "validation")
    assert places(first, "test") and not places(first, "test") & learned
    kept = second.loc[second["part"] == "test", "filestem"]
    there = set(tested) - set(rows.loc[gone, "filestem"])
    assert there and there <= set(kept)
    before = places(first, "train") | places(first, "validation")
    assert not before & places(second, "test")
    assert "no earlier split is followed" not in caplog.text


def test_a_release_of_other_images_says_that_no_earlier_split_was_found(drawn, releases, caplog):
    rows = drawn[1]
    half = rows["patient_id"].astype(int) % 2 == 0
    releases("release1", rows[half])
    assert "no earlier split is followed" not in caplog.text  # there was none
    releases("release2", rows[~half])
    assert "a new test set is drawn: of those in the store 1 have none of these" in caplog.text


def test_other_rules_say_that_no_earlier_split_was_found(drawn, releases, caplog):
    releases("release1", drawn[1])
    releases("release1", drawn[1], seed=1)
    assert "a new test set is drawn" in caplog.text
    assert "1 were made by other rules (split, cohort)" in caplog.text
    assert "name its split.csv in split.previous" in caplog.text
