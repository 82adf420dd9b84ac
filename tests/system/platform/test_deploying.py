"""Deploying again: what a person set in the UI stays."""

WEEKLY = "/deployments/name/retrain/retrain-weekly"


def test_a_schedule_is_off_at_first_and_stays_as_it_is_left(stage):
    assert [one["active"] for one in stage.ask("GET", WEEKLY)["schedules"]] == [False]
    for active in (True, False):
        weekly = stage.ask("GET", WEEKLY)
        (schedule,) = weekly["schedules"]
        switch = f"/deployments/{weekly['id']}/schedules/{schedule['id']}"
        stage.ask("PATCH", switch, {"active": active})  # as the UI does
        stage.deploy("--name", "retrain-weekly")
        (again,) = stage.ask("GET", WEEKLY)["schedules"]
        assert (again["id"], again["active"]) == (schedule["id"], active)
