"""Published splits of the real table: one by patient, and one made by image, whose leak is counted.

What is counted is compared with pandas on the table's own patient_id, not on file names.
"""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pedfrac.data.split import Split
from pedfrac.data.split_file import FILE_PARTS, read_split_file
from pedfrac.evaluation.published import convert_split, find_protocol
from pedfrac.evaluation.split_leakage import Leakage, free_of_leakage, read_published_split

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ROOT = SHARED / "grazpedwri"
RUIYANGJU = SHARED / "splits" / "ruiyangju.csv"

pytestmark = pytest.mark.skipif(
    not (ROOT / "dataset.csv").exists(), reason=f"the real data are not at {ROOT}"
)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(ROOT / "dataset.csv", encoding="utf-8-sig")


def oracle(images: pd.DataFrame) -> dict[str, int]:
    """Count the leak from filestem, patient_id and part."""
    members = {part: set(rows["patient_id"]) for part, rows in images.groupby("part")}
    learnt = members["train"] | members["validation"]
    pairs = (("train", "validation"), ("train", "test"), ("validation", "test"))
    test = images[images["part"] == "test"]
    return {
        "patients": images["patient_id"].nunique(),
        "shared_patients": len(set().union(*(members[a] & members[b] for a, b in pairs))),
        "test_patients": len(members["test"]),
        "leaking_patients": len(members["test"] & learnt),
        "leaking_images": int(test["patient_id"].isin(learnt).sum()),
        "repeated_images": 0,
    }


def counts(leakage: Leakage) -> dict[str, int]:
    return {name: count for name, count in leakage.counts().items() if isinstance(count, int)}


def test_a_split_by_image_leaks_and_is_freed_of_it(table: pd.DataFrame, tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).permutation(len(table)) / len(table)
    part = np.select([drawn < 0.7, drawn < 0.9], ["train", "valid"], "test")
    table.assign(split=part)[["filestem", "split"]].to_csv(tmp_path / "split.csv", index=False)
    leakage = convert_split(tmp_path / "split.csv", tmp_path / "made" / "clean.csv")
    images = table.assign(part=[FILE_PARTS[name] for name in part])
    assert counts(leakage) == oracle(images)
    # most test images have their patient elsewhere: such a split measures memory
    assert leakage.leaking_images / leakage.given["test"] > 0.8
    kept = read_split_file(tmp_path / "made" / "clean.csv")
    Split(kept.merge(table[["filestem", "patient_id"]], on="filestem", validate="1:1"))
    test = images.loc[images["part"] == "test"]
    assert set(kept.loc[kept["part"] == "test", "filestem"]) == set(test["filestem"])
    # of the others exactly the images of test patients, and of train those of validation patients
    untested = images[~images["patient_id"].isin(test["patient_id"])]
    validating = untested.loc[untested["part"] == "validation"]
    training = untested[~untested["patient_id"].isin(validating["patient_id"])]
    assert leakage.kept == {
        "train": len(training), "validation": len(validating), "test": len(test)
    }  # fmt: skip


@pytest.mark.skipif(not RUIYANGJU.exists(), reason=f"the published split is not at {RUIYANGJU}")
def test_the_split_of_ruiyangju_shares_no_patient(table: pd.DataFrame) -> None:
    split = read_published_split(RUIYANGJU)
    kept, leakage = free_of_leakage(split)
    assert counts(leakage) == oracle(split.merge(table[["filestem", "patient_id"]], on="filestem"))
    assert (leakage.shared_patients, leakage.leaking_images) == (0, 0)
    assert kept.equals(split)
    assert find_protocol("ruiyangju").parts == leakage.given


@pytest.mark.skipif(not RUIYANGJU.exists(), reason=f"the published split is not at {RUIYANGJU}")
def test_the_metrics_of_ruiyangju_are_of_validation_images() -> None:
    """The published table counts 3,740 fracture boxes of 9,613: those of the validation images."""
    boxes = pd.read_csv(ROOT / "boxes_all.csv")
    kinds = boxes["labels"].map(ast.literal_eval)
    counted = pd.DataFrame(
        {
            "filestem": boxes["image_id"].str.removesuffix(".png"),
            "all": kinds.map(len),
            "fracture": kinds.map(lambda found: sum(int(kind) == 3 for kind in found)),
        }
    )
    joined = read_published_split(RUIYANGJU).merge(counted, on="filestem")
    sums = joined.groupby("part")[["all", "fracture"]].sum()
    assert tuple(sums.loc["validation"]) == (9_613, 3_740)
    assert sums.loc["test", "fracture"] == 1_738
