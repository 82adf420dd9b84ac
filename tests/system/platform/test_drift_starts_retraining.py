"""A change of images at work, as deployed monitoring sees it, starts one retraining, no second."""

import subprocess
import sys

import pytest
from made_profiles import made_images
from platforms import wait_for
from small_bundles import write_small_bundle

from pedfrac.bundle.bundle import bundle_digest
from pedfrac.bundle.embedding import Basis
from pedfrac.bundle.reference_profile import Profile, save_profile

RETRAINING = "retrain-after-drift"
EMIT = """
from prefect.events import emit_event
resource = {"prefect.resource.id": "pedfrac.bundle.other", "pedfrac.retraining": "due"}
emit_event(event="pedfrac.drift", resource=resource)
"""


@pytest.fixture(scope="module")
def settings(stage, tmp_path_factory):
    """What monitoring is given: a bundle with a profile, and scores of older children."""
    folder = tmp_path_factory.mktemp("drift")
    bundle = write_small_bundle(folder)
    images = made_images(0)
    features = [name for name in images if name.startswith("feature_")]
    about = {"images": len(images), "patients": 120, "markers": "off", "images_are": "made up"}
    basis = Basis.of(images[features].to_numpy()[:30])
    save_profile(
        bundle,
        Profile(images.drop(columns=features), Basis(basis.mean, basis.components[:0]), about),
    )
    rows = made_images(1, age=14.0).assign(
        file="-", error="", bundle=bundle_digest(bundle)[:16], scored="2025-03-03T08:00:00+00:00"
    )
    rows["key"], rows["patient"] = rows.index.astype(str), rows["patient"].astype(str)
    rows.drop(columns="fractured").to_parquet(folder / "scores.parquet")
    config = {"scores": [str(folder / "scores.parquet")], "bundle": str(bundle), "output": ""}
    return {"config": config | {"tracking": {"experiment": "drift"}}}


def events(stage):
    """Return the events of a change that the server has, newest first."""
    wanted = {"filter": {"event": {"name": ["pedfrac.drift"]}}}
    return stage.ask("POST", "/events/filter", wanted)["events"]


def retrainings(stage):
    wanted = {"deployments": {"name": {"any_": [RETRAINING]}}}
    return stage.ask("POST", "/flow_runs/filter", wanted)


def test_a_change_starts_one_retraining_and_a_second_one_does_not(stage, settings):
    deployment = stage.ask("GET", f"/deployments/name/retrain/{RETRAINING}")
    nothing = {"config": {"data": {"root": str(stage.folder / "no-data")}}}
    # its run is to be seen, not to be waited for
    stage.ask("PATCH", f"/deployments/{deployment['id']}", {"parameters": nothing})

    run = stage.begin("monitor/monitor", settings)
    state = stage.finish(run)
    assert state["type"] == "COMPLETED", state["message"]
    wait_for(lambda: retrainings(stage), "the retraining")
    (event,) = wait_for(lambda: events(stage), "the event")  # told later than it acts
    assert event["resource"]["pedfrac.retraining"] == "due"
    assert "age" in event["payload"]["drifted"]
    assert "older children" in event["payload"]["said"]

    stage.finish(stage.begin("monitor/monitor", settings))
    wait_for(lambda: len(events(stage)) == 2, "the second event")
    assert events(stage)[0]["resource"]["pedfrac.retraining"] == "recent"

    # a third that no flow has held back, as from two monitorings at the same time
    subprocess.run([sys.executable, "-c", EMIT], env=stage.environment, check=True)
    wait_for(lambda: len(events(stage)) == 3, "the third event")
    stage.finish(stage.begin("monitor/monitor", settings))  # time enough for a wrong start
    assert len(retrainings(stage)) == 1


def test_the_automation_stays_as_it_is_left(stage):
    def automation():
        (found,) = [
            one
            for one in stage.ask("POST", "/automations/filter", {})
            if one["name"] == "pedfrac · retraining after drift"
        ]
        return found

    assert automation()["enabled"]
    stage.ask("PATCH", f"/automations/{automation()['id']}", {"enabled": False})
    stage.deploy("--name", RETRAINING)
    assert not automation()["enabled"]
    stage.ask("PATCH", f"/automations/{automation()['id']}", {"enabled": True})


def test_the_schedule_of_monitoring_is_off_at_first(stage):
    (schedule,) = stage.ask("GET", "/deployments/name/monitor/monitor")["schedules"]
    assert not schedule["active"]
