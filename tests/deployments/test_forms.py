"""The forms that Prefect's UI draws: few fields, and wrong values refused before any run."""

from pathlib import Path

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.schema_tools.validation import validate

FILE = Path(__file__).parents[2] / "deployments/prefect.yaml"
DEPLOYMENTS = {one["name"]: one for one in yaml.safe_load(FILE.read_text())["deployments"]}
MOST = 25


def schema(name):
    entrypoint = DEPLOYMENTS[name]["entrypoint"]
    flow = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    return flow.parameters.model_dump_for_openapi()


def fields(part, whole):
    """Count the fields that the form draws: a property without properties is one."""
    if "$ref" in part:
        part = whole["definitions"][part["$ref"].rpartition("/")[2]]
    if len(part.get("allOf", [])) == 1:
        return fields(part["allOf"][0], whole)
    below = part.get("properties")
    return sum(fields(one, whole) for one in below.values()) if below else 1


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_form_has_few_fields(name):
    drawn = schema(name)
    most = 60 if name in ("promote", "search") else MOST
    assert 1 <= fields(drawn, drawn) <= most


def test_wrong_values_are_refused_by_the_server_though_the_settings_are_one_field():
    def faults(training):
        config = {"data": {"root": "/a"}, "fracture": {"training": training}}
        found = validate({"config": config}, schema("retrain"), raise_on_error=False)
        return [one.message for one in found]

    assert faults({"epochs": 3}) == []
    assert faults({"epochs": 0}) == ["0 is less than the minimum of 1"]
    assert "was unexpected" in faults({"epoch": 3})[0]
