"""Keys of steps follow the content of every file that a configuration names."""

import pytest

from pedfrac.config.retrain import RetrainConfig
from pedfrac.data.schema import COLUMNS
from pedfrac.pipeline.keys import store_of
from pedfrac.pipeline.results import finished_retraining, record_retraining


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PEDFRAC_ARTIFACTS", raising=False)
    for name in ("data/images", "data/labels"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/dataset.csv").write_text(",".join(COLUMNS) + "\n")
    (tmp_path / "split.csv").write_text("filestem,split\n")
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    return RetrainConfig.model_validate(
        {
            "data": {"root": "data"},
            "split": {"file": "split.csv"},
            "fracture": {"model": {"weights": "weights.safetensors"}},
        }
    )


@pytest.mark.parametrize("file", ["data/dataset.csv", "split.csv", "weights.safetensors"])
def test_a_finished_retraining_is_not_that_of_changed_files(config, tmp_path, file):
    report = store_of(config).produce(
        "report", lambda folder: (folder / "report.html").touch(), config={}
    )
    record_retraining(config, {"report_key": report.key})
    found = finished_retraining(config)
    assert found is not None and found[0] == {"report_key": report.key}
    with (tmp_path / file).open("ab") as opened:
        opened.write(b"more")
    assert finished_retraining(config) is None
