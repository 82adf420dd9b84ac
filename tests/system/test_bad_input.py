"""Data, split files and configurations with faults: what a user is told, and that work goes on."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from commands import pedfrac, tiny

from pedfrac.config.phantoms import PhantomConfig
from pedfrac.phantoms.dataset import write_phantoms


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with a sound data set."""
    root = tmp_path_factory.mktemp("original")
    write_phantoms(root / "data", PhantomConfig(images=120, scale=0.15, workers=1))
    return root


@pytest.fixture
def folder(original, tmp_path):
    """A folder with a copy of the data set, to be spoilt."""
    shutil.copytree(original / "data", tmp_path / "data")
    return tmp_path


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "data/dataset.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def write_table(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "data/dataset.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def refused(done) -> str:
    """Return the one line of a command that told what is wrong and did nothing else."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("pedfrac: ")
    return line.removeprefix("pedfrac: ")


# ---- what cannot be a data set is told before anything starts ---------------------------------


@pytest.mark.parametrize("command", ["records", "split", "retrain"])
def test_no_data_folder(tmp_path, command):
    line = refused(pedfrac(tmp_path, command, "--data", "nowhere"))
    assert line == "nowhere/dataset.csv: is missing; data.root must be the folder of it"
    assert not (tmp_path / "artifacts").exists()


def test_a_renamed_column(folder):
    renamed = [
        {name.replace("fracture_visible", "fracture"): cell for name, cell in row.items()}
        for row in read_table(folder)
    ]
    write_table(folder, renamed)
    line = refused(tiny(folder, "retrain"))
    assert line.startswith(
        "data/dataset.csv: column 'fracture_visible' is missing; column 'fracture' is unknown;"
    )


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("images_part*", "data: no images*/ folder here"),
        ("folder_structure", "data: no labels folder here"),
    ],
)
def test_a_lost_folder(folder, lost, told):
    for path in folder.glob(f"data/{lost}"):
        shutil.rmtree(path)
    assert refused(tiny(folder, "retrain")).startswith(told)


# ---- configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set=fracture.training.epoch=3"], "no such field (found 3); near it: epochs"),
        (["--set=fracture.training.epochs=many"], "fracture.training.epochs"),
        (["--set=fracture.training.epochs"], "must look like key.sub=value"),
        (["--missing=ignore"], "data.missing: Input should be 'error' or 'drop' (found 'ignore')"),
        (["--config=nowhere.yaml"], "nowhere.yaml: cannot be read (No such file or directory)"),
        (["--config=broken.yaml"], "broken.yaml: is not YAML (while parsing"),
    ],
)
def test_a_wrong_configuration(original, arguments, told):
    (original / "broken.yaml").write_text("fracture: {model: [\n")
    assert told in refused(pedfrac(original, "retrain", "--data=data", *arguments))


# ---- a split made elsewhere -------------------------------------------------------------------


def write_split(folder: Path, change=lambda parts: parts) -> str:
    """Write an outside split by patient, changed before it is written; return its name."""
    parts = {
        row["filestem"]: ("train", "train", "valid", "test")[int(row["patient_id"]) % 4]
        for row in read_table(folder)
    }
    lines = [f"{stem},{part}\n" for stem, part in change(parts).items()]
    (folder / "split.csv").write_text("".join(["filestem,split\n", *lines]))
    return "split.csv"


def test_a_split_that_shares_a_patient(original):
    def share(parts):
        stem = next(iter(parts))
        return parts | {stem: "test" if parts[stem] != "test" else "train"}

    stem = read_table(original)[0]["filestem"]
    line = refused(tiny(original, "split", "--file", write_split(original, share)))
    assert line.startswith("split.csv: is no split by patient: split: 1 patients are in more than")
    assert f"{stem} of patient {stem[:4]} in test" in line


def test_a_split_with_an_unknown_word(original):
    def rename(parts):
        return parts | {list(parts)[6]: "holdout"}

    line = refused(tiny(original, "split", "--file", write_split(original, rename)))
    assert line == (
        "split.csv, line 8: split 'holdout' must be one of train, valid, validation, val, test"
    )


def test_a_split_that_does_not_fit_the_images(original):
    """Images that only one of the two knows are counted and named, and the rest is split."""
    stranger = "9999_0000000001_01_WRI-L1_M010"
    table = read_table(original)
    unnamed = next(row["filestem"] for row in table if not row["metal"])

    def misfit(parts):
        return {stem: part for stem, part in parts.items() if stem != unnamed} | {stranger: "test"}

    file = write_split(original, misfit)
    done = tiny(original, "split", "--json", "--file", file, **{"cohort.exclude_metal": False})
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    told = result["report"]["file"]
    assert (told["images_not_in_cohort"], told["not_in_cohort_such_as"]) == (1, [stranger])
    assert (told["cohort_not_named"], told["not_named_such_as"]) == (1, [unnamed])
    parts = {name: part["images"] for name, part in result["report"]["parts"].items()}
    assert parts["left_out"] == 1 and sum(parts.values()) == len(table)
    assert result["patients_in_two_parts"] == 0


# ---- single images -----------------------------------------------------------------------------


def test_images_that_cannot_be_used_are_named_and_the_rest_is_packed(folder):
    table = read_table(folder)
    old = next(row for row in table if row["age"] == "10" or float(row["age"]) > 10)
    was = old["age"]
    old["age"] = "190"
    write_table(folder, table)
    (cut,) = folder.glob(f"data/images_part*/{table[-1]['filestem']}.png")
    cut.write_bytes(cut.read_bytes()[:2000])

    done = tiny(folder, "pack", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    keys = json.loads(done.stdout)["artifacts"]
    with (folder / "artifacts" / keys["records"] / "issues.csv").open() as file:
        issues = {row["filestem"]: row for row in csv.DictReader(file)}
    assert was != "190" and set(issues) == {old["filestem"], table[-1]["filestem"]}
    assert issues[old["filestem"]] | {"filestem": ""} == {
        "filestem": "",
        "line": str(table.index(old) + 2),
        "kind": "value",
        "field": "age",
        "value": "190",
        "reason": "must be a number of years from 0 to 25",
        "dropped": "True",
    }
    told = issues[table[-1]["filestem"]]
    assert told["line"] == str(len(table) + 1) and told["kind"] == "image-truncated"
    assert told["value"] == cut.relative_to(folder / "data").as_posix()
    assert "a PNG truncated after 2000 bytes" in told["reason"]
