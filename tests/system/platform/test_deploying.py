"""Deploying again: what a person set in the UI stays."""

import json

WEEKLY = "/deployments/name/retrain/retrain-weekly"


def test_a_schedule_is_off_at_first_and_stays_as_it_is_left(stage):
    weekly = stage.ask("GET", WEEKLY)
    (schedule,) = weekly["schedules"]
    assert not schedule["active"]
    switch = f"/deployments/{weekly['id']}/schedules/{schedule['id']}"
    stage.ask("PATCH", switch, {"active": True})  # as the UI does
    stage.deploy("--name", "retrain-weekly")
    (again,) = stage.ask("GET", WEEKLY)["schedules"]
    assert (again["slug"], again["active"]) == ("weekly", True)
    switch = f"/deployments/{weekly['id']}/schedules/{again['id']}"
    stage.ask("PATCH", switch, {"active": False})


def test_what_was_set_in_the_ui_survives_an_operators_file_and_is_told(stage, monkeypatch):
    weekly = stage.ask("GET", WEEKLY)
    mine = stage.folder / "operator.yaml"
    mine.write_text(
        "retraining: {cohort: {age_bounds: [0, 9, 19]}}\n"
        "deployments: {retrain-weekly: {schedules: {weekly: {cron: '0 3 * * 0'}}}}\n"
    )
    parameters = weekly["parameters"]
    parameters["config"]["fracture"] = {"training": {"epochs": 7}}
    change = f"/deployments/{weekly['id']}"
    stage.ask("PATCH", change, {"parameters": parameters})
    (schedule,) = weekly["schedules"]
    when = {"cron": "0 4 * * 0", "timezone": "Europe/Vienna"}
    stage.ask("PATCH", f"{change}/schedules/{schedule['id']}", {"schedule": when})
    extra = {"cron": "0 5 1 * *", "timezone": "UTC"}
    stage.ask("POST", f"{change}/schedules", [{"active": False, "schedule": extra}])

    monkeypatch.setitem(stage.environment, "PEDFRAC_CONFIG", str(mine))
    command = ("flows.cli", "deploy", "--name", "retrain-weekly")
    told = json.loads(stage.command(*command, "--json"))["set_in_ui"]
    outcomes = {one["setting"]: one["outcome"] for one in told}
    assert outcomes["parameters.config.fracture.training.epochs"] == "kept"
    assert outcomes["schedules.weekly.cron"] == "overridden"
    now = stage.ask("GET", WEEKLY)
    assert now["parameters"]["config"]["cohort"] == {"age_bounds": [0, 9, 19]}
    assert now["parameters"]["config"]["fracture"] == {"training": {"epochs": 7}}
    crons = {one["schedule"]["cron"] for one in now["schedules"]}
    assert crons == {"0 3 * * 0", "0 5 1 * *"}

    monkeypatch.delitem(stage.environment, "PEDFRAC_CONFIG")
    stage.command(*command, "--reset")
    assert stage.ask("GET", WEEKLY)["parameters"].keys() == {"config", "skip_unchanged"}
    assert "fracture" not in stage.ask("GET", WEEKLY)["parameters"]["config"]
