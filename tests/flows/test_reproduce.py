"""The command ``reproduce`` where nothing is trained: what it lists, and what it refuses.

Not here: a whole reproduction (tests/system).
"""

import json

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from pedfrac.errors import PedfracError
from pedfrac.evaluation.published import published_protocols, published_references
from pedfrac.phantoms.dataset import COLUMNS


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty data set and two splits, in the folder where the command is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PEDFRAC_ARTIFACTS", raising=False)
    for name in ("data/images", "data/labels"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/dataset.csv").write_text(",".join(COLUMNS) + "\n")
    rows = ["0001_1,train", "0001_2,test", "0002_1,valid", "0003_1,train"]
    for name in ("published.csv", "other.csv"):
        own = [row for row in rows if name == "published.csv" or not row.startswith("0001_1")]
        (tmp_path / name).write_text("\n".join(["filestem,split", *own]))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["reproduce", *arguments], env={"COLUMNS": "160"})


def test_all_protocols_and_metrics_are_listed(folder):
    shown = run("--list")
    assert shown.exit_code == 0
    told = json.loads(run("--list", "--json").stdout)
    assert told["references"] == [one.model_dump(mode="json") for one in published_references()]
    for protocol in published_protocols():
        assert protocol.name in shown.output
        assert protocol.url in shown.output
    assert {one["name"] for one in told["protocols"]} == {one.name for one in published_protocols()}
    assert not (folder / "artifacts").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a protocol and its --split"),
        (["ruiyangju"], "give a protocol and its --split"),
        (["ruiyangju", "--split=nowhere.csv"], "nowhere.csv: cannot be read"),
        (["hrzic2022", "--split=published.csv"], "split of hrzic2022 is not published"),
        (["nobody", "--split=published.csv"], "there is no protocol 'nobody'"),
        (
            ["ruiyangju", "--split=published.csv", "--set=split.file=other.csv"],
            "leave split.file out",
        ),
        (
            ["ruiyangju", "--split=published.csv", "--set=split.folds=3", "--set=split.fold=0"],
            "choose either file or fold",
        ),
    ],
)
def test_what_cannot_be_reproduced_is_refused_in_a_line(arguments, message):
    refused = run(*arguments, "--data=data")
    assert refused.exit_code == 1
    assert isinstance(refused.exception, PedfracError)
    assert message in str(refused.exception)
    assert "\n" not in str(refused.exception)
