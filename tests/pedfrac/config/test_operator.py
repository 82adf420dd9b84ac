"""The operator's file: where it is found, and what it may not hold."""

import pytest

from pedfrac.config.operator import (
    VARIABLE,
    load_operator,
    refuse_example_secrets,
    refuse_placeholders,
)
from pedfrac.errors import PedfracError


def test_without_a_file_everything_is_as_shipped(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert load_operator().promotion.gate.floors.specificity == 0.7


def test_the_file_that_the_variable_names_is_read(monkeypatch, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("retraining: {promotion: {gate: {floors: {specificity: 0.9}}}}")
    monkeypatch.setenv(VARIABLE, str(file))
    assert load_operator().promotion.gate.floors.specificity == 0.9
    file.write_text("retraining: {promotion: {gate: {flors: {}}}}")
    with pytest.raises(PedfracError, match=r"mine.yaml: retraining: .*promotion.gate.flors"):
        load_operator()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.yaml"))
    with pytest.raises(PedfracError, match="none.yaml: cannot be read"):
        load_operator()


def test_placeholders_are_named_wherever_they_stand():
    refuse_placeholders({"a": ["s3://mine/x"]}, "file")
    with pytest.raises(PedfracError, match=r"file: a\.1: 's3://BUCKET/x'; b: 'change-me'"):
        refuse_placeholders({"a": ["ok", "s3://BUCKET/x"], "b": "change-me"}, "file")


def test_an_example_secret_is_named_without_its_value(monkeypatch):
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:change-me-really")
    with pytest.raises(PedfracError, match="^PREFECT_API_AUTH_STRING: holds the example") as told:
        refuse_example_secrets()
    assert "really" not in str(told.value)
