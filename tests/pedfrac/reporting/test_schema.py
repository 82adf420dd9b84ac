"""metrics.json keeps to its published schema, and a file that does not is refused by name."""

import json

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from made_findings import make_findings

from pedfrac.errors import PedfracError
from pedfrac.reporting.schema import METRICS, SCHEMA, read_findings, schema, write_findings


@pytest.fixture(scope="module")
def content():
    return make_findings(images=300)


@pytest.fixture
def folder(tmp_path, content):
    write_findings(tmp_path, content)
    return tmp_path


def test_metrics_fit_the_schema_that_lies_beside_them(folder, content):
    written = json.loads((folder / SCHEMA).read_text())
    assert written == schema()
    Draft202012Validator.check_schema(written)
    validator = Draft202012Validator(written)
    found = json.loads((folder / METRICS).read_text())
    validator.validate(found)
    del found["groups"][0]["models"]["bundle"]["auroc"]["low"]
    with pytest.raises(ValidationError, match="'low' is a required property"):
        validator.validate(found)


def test_what_was_written_is_read_back(folder, content):
    found = read_findings(folder / METRICS)
    assert found == json.loads((folder / METRICS).read_text())
    assert found["groups"][0]["models"]["bundle"] == content["groups"][0]["models"]["bundle"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": "none"}, r"groups: .*list \(found 'none'\)"),
        ({"schema_version": 9}, r"schema_version: .* \(found 9\)"),
        ({"colour": 1}, "colour: there is no such field"),
    ],
)
def test_another_file_is_refused_by_name(folder, change, message):
    path = folder / METRICS
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PedfracError, match=rf"metrics.json: .*{message}"):
        read_findings(path)


def test_a_fault_deep_inside_is_named_with_what_should_be_there(folder):
    path = folder / METRICS
    found = json.loads(path.read_text())
    del found["groups"][0]["above_baselines"]
    del found["studies"]["groups"][1]["models"]["bundle"]["auroc"]["low"]
    found["routing"]["routes"]["soft"]["change"]["auroc"]["colour"] = 1
    path.write_text(json.dumps(found))
    with pytest.raises(PedfracError) as caught:
        read_findings(path)
    faults = str(caught.value)
    assert "groups.0.above_baselines: must be given (AUROC of the bundle less" in faults
    assert "studies.groups.1.models.bundle.auroc.low: must be given" in faults
    assert "routing.routes.soft.change.auroc.colour: there is no such field (found 1)" in faults


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / METRICS).write_text("{")
    with pytest.raises(PedfracError, match=r"metrics.json: cannot be read as JSON"):
        read_findings(tmp_path / METRICS)
    with pytest.raises(PedfracError, match="nowhere.json: cannot be read"):
        read_findings(tmp_path / "nowhere.json")
