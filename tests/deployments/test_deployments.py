"""The shipped deployments with their defaults, and with an operator's file over them."""

from pathlib import Path

import pytest
import yaml

from flows.infrastructure.deployments import read_deployments
from pedfrac.config.operator import VARIABLE, OperatorConfig, load_operator
from pedfrac.errors import PedfracError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deployments"
EXAMPLE = FOLDER / "example-config.yaml"
BASE = {"data": {"root": "/data"}, "results": "", "runtime": {"dispatch": "deployments"}}
RETRAINING, TRAINING = ["retraining"], ["training"]
ONE_AT_A_TIME = {"limit": 1, "collision_strategy": "CANCEL_NEW"}
WEEKLY = {"cron": "0 2 * * 0", "timezone": "Europe/Vienna", "slug": "weekly", "active": False}
MONDAYS = WEEKLY | {"cron": "0 6 * * 1"}
QUARTERLY = {"interval": 900, "slug": "quarterly", "active": False}
SHIPPED = {  # flow/deployment: pool/queue, parameters, tags, schedules, limit
    "retrain/retrain": ("cpu/waiting-clicked", {"config": BASE}, RETRAINING, [], None),
    "retrain/retrain-weekly": (
        *("cpu/waiting-scheduled", {"config": BASE, "skip_unchanged": True}),
        *(RETRAINING, [WEEKLY], ONE_AT_A_TIME),
    ),
    "retrain/retrain-after-drift": (
        *("cpu/waiting-scheduled", {"config": BASE, "skip_unchanged": True}),
        *(RETRAINING, [], ONE_AT_A_TIME),
    ),
    "train-fracture/train-fracture": ("gpu/clicked", {"config": BASE}, TRAINING, [], None),
    "train-age/train-age": ("gpu/clicked", {"config": BASE}, TRAINING, [], None),
    "search/search": ("cpu/waiting-clicked", {"config": BASE}, ["search"], [], None),
    "try-training/try-training": ("gpu/clicked", {"config": BASE}, TRAINING, [], None),
    "score-fold/score-fold": ("gpu/clicked", {"config": BASE}, TRAINING, [], None),
    "assess-bundle/assess-bundle": ("gpu/clicked", {"config": BASE}, TRAINING, [], None),
    "records/records": ("cpu/clicked", {"config": BASE}, [], [], None),
    "split/split": ("cpu/clicked", {"config": BASE}, [], [], None),
    "pack/pack": ("cpu/clicked", {"config": BASE}, [], [], None),
    "evaluate/evaluate": ("cpu/waiting-clicked", {"config": BASE}, [], [], None),
    "explain/explain": ("cpu/waiting-clicked", {"config": BASE}, [], [], None),
    "predict/predict": (
        "gpu/clicked",
        {"config": {"bundle": "champion"}},
        ["prediction"],
        [],
        None,
    ),
    "predict/predict-watch": (
        *("cpu/prediction", {"config": {"bundle": "champion"}, "watch": True}),
        *(["prediction"], [QUARTERLY], None),
    ),
    "promote/promote": ("cpu/clicked", {"config": {"results": ""}}, ["promotion"], [], None),
    "monitor/monitor": (
        "cpu/scheduled",
        {"config": {"bundle": "champion", "last_days": 7, "output": ""}, "quiet_days": 7},
        *(["monitoring"], [MONDAYS], ONE_AT_A_TIME),
    ),
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("PEDFRAC_DATA", "/data")
    monkeypatch.delenv(VARIABLE, raising=False)


def read(**operator):
    found = read_deployments(FOLDER, OperatorConfig.model_validate(operator), "operator.yaml")
    return {one.name: one for one in found}


def test_every_default_is_the_one_that_is_promised():
    found = {}
    for one in read().values():
        said, pool = one.described, one.described["work_pool"]
        found[one.path] = (
            f"{pool['name']}/{pool['work_queue_name']}",
            said["parameters"],
            said.get("tags", []),
            said.get("schedules", []),
            said.get("concurrency_limit"),
        )
    assert found == SHIPPED


def test_what_a_person_must_still_give_is_named_and_may_not_be_on_a_schedule():
    assert {one.name: one.missing for one in read().values() if one.missing} == {
        "predict": ["config.images"],
        "predict-watch": ["config.images"],
        "monitor": ["config.scores"],
    }
    on = {"predict-watch": {"schedules": {"quarterly": {"active": True}}}}
    with pytest.raises(PedfracError, match="its schedule is on, but config.images must be given"):
        read(deployments=on)


def test_the_operators_sections_reach_every_deployment_that_takes_them():
    gate = {"gate": {"floors": {"specificity": 0.9}}}
    found = read(
        retraining={"data": {"root": "s3://mine/data"}, "promotion": gate},
        prediction={"images": ["s3://mine/new"]},
        monitoring={"scores": ["s3://mine/scores.parquet"]},
        deployments={
            "retrain-weekly": {"parameters": {"config": {"cohort": {"age_bounds": "0,9"}}}}
        },
    )
    for name, one in found.items():
        config = one.described["parameters"]["config"]
        assert one.missing == []
        if name.startswith(("retrain", "train", "search", "pack")):
            assert config["data"] == {"root": "s3://mine/data"}
            assert config["runtime"] == {"dispatch": "deployments"}
        if name.startswith(("retrain", "promote")):
            assert config["promotion"] == gate
    assert found["retrain-weekly"].described["parameters"]["config"]["cohort"]
    assert "cohort" not in found["retrain"].described["parameters"]["config"]


def test_the_variable_of_the_data_is_asked_for_only_where_the_file_names_none(monkeypatch):
    monkeypatch.delenv("PEDFRAC_DATA")
    with pytest.raises(PedfracError, match="retrain: PEDFRAC_DATA is not set"):
        read()
    assert read(retraining={"data": {"root": "/there"}})


WRONG = {
    "retrain: config: fracture.training.epochs: .* greater than or equal to 1 .found 0.": {
        "retraining": {"fracture": {"training": {"epochs": 0}}}
    },
    "config: fracture.training.epoch: there is no such field .* near it: epochs": {
        "retraining": {"fracture": {"training": {"epoch": 3}}}
    },
    "monitor: config: .*last_days: .* greater than 0 .found -1.": {"monitoring": {"last_days": -1}},
    "deployments.retrain-wekly: there is no such deployment": {
        "deployments": {"retrain-wekly": {}}
    },
    "retrain: there is no parameter configs; allowed are config": {
        "deployments": {"retrain": {"parameters": {"configs": {}}}}
    },
    "monitor: config.scores.0: 's3://BUCKET/scores.parquet': replace the placeholder": {
        "monitoring": {"scores": ["s3://BUCKET/scores.parquet"]}
    },
}


@pytest.mark.parametrize("told", WRONG)
def test_what_is_wrong_is_refused_by_name(told):
    with pytest.raises(PedfracError, match=told):
        read(**WRONG[told])


def test_the_example_is_refused_as_it_is_and_taken_once_its_placeholders_are_replaced(tmp_path):
    with pytest.raises(PedfracError) as refused:
        load_operator(EXAMPLE)
    text = EXAMPLE.read_text()
    assert str(refused.value).count("BUCKET") == text.count("BUCKET")
    mine = tmp_path / "pedfrac.yaml"
    mine.write_text(text.replace("BUCKET", "hospital"))
    found = read_deployments(FOLDER, load_operator(mine), str(mine))
    assert not any(one.missing for one in found)
    assert [one.name for one in found if one.scheduled] == ["retrain-weekly"]


def test_secrets_of_compose_stay_out_of_the_repository():
    assert "docker/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_no_placeholder_is_shipped():
    shipped = yaml.safe_load((FOLDER / "prefect.yaml").read_text())
    assert "BUCKET" not in str(shipped)
