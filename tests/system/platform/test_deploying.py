"""Deploying again: what a person set in the UI stays."""

WEEKLY = "/deployments/name/retrain/retrain-weekly"


def test_a_schedule_is_off_at_first_and_stays_as_it_is_left(stage):
    weekly = stage.ask("GET", WEEKLY)
    (schedule,) = weekly["schedules"]
    assert not schedule["active"]
    switch = f"/deployments/{weekly['id']}/schedules/{schedule['id']}"
    stage.ask("PATCH", switch, {"active": True})  # as the UI does
    stage.deploy("--name", "retrain-weekly")
    (again,) = stage.ask("GET", WEEKLY)["schedules"]
    stage.ask("PATCH", switch, {"active": False})
    assert (again["id"], again["active"]) == (schedule["id"], True)
