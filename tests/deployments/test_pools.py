"""What deployments/ describes: entrypoints that load, pools with their defaults, automations."""

from pathlib import Path

import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore
from prefect.flows import load_flow_from_entrypoint

from flows.infrastructure.pools import pool_template
from pedfrac.errors import PedfracError
from pedfrac.pipeline.keys import Prepared

FOLDER = Path(__file__).parents[2] / "deployments"
DEPLOYMENTS = yaml.safe_load((FOLDER / "prefect.yaml").read_text())["deployments"]
POOLS = yaml.safe_load((FOLDER / "pools.yaml").read_text())["pools"]
AUTOMATIONS = yaml.safe_load((FOLDER / "automations.yaml").read_text())["automations"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_every_entrypoint_is_a_flow_that_takes_the_parameters(deployment):
    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    assert set(deployment["parameters"]) <= set(flow.parameters.properties)
    pool = deployment["work_pool"]
    assert pool["work_queue_name"] in POOLS[pool["name"]]["queues"]
    keys = dict.fromkeys(Prepared.model_fields, "a")
    left = {
        "score-fold": {"prepared": keys, "bundle": "a"},
        "try-training": {
            "prepared": keys,
            "model": "age",
            "search": "a",
            "number": 0,
            "floor": [None],
        },
    }.get(deployment["name"], {})
    checked = flow.validate_parameters(deployment["parameters"] | left)
    own = ("predict", "predict-watch", "promote", "monitor")  # which have no children
    if deployment["name"] not in own:
        assert checked["config"].runtime.dispatch == "deployments"


def test_networks_run_on_the_gpu_pool_and_parents_do_not():
    pools = {deployment["name"]: deployment["work_pool"]["name"] for deployment in DEPLOYMENTS}
    assert {name for name, pool in pools.items() if pool == "gpu"} == {
        "train-age",
        "train-fracture",
        "score-fold",
        "try-training",
        "predict",
        "predict-watch",
    }


SCHEDULED = [one for one in DEPLOYMENTS if one.get("schedules")]


@pytest.mark.parametrize("deployment", SCHEDULED, ids=lambda d: d["name"])
def test_a_schedule_is_left_as_it_is(deployment):
    (schedule,) = deployment["schedules"]
    assert schedule["timezone"] == "Europe/Vienna" if "cron" in schedule else schedule["interval"]
    # that it is off at first and then stays as it was left: tests/system/platform
    (step,) = deployment["build"]
    kept = step["flows.infrastructure.schedules.as_left"]
    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    assert kept["deployment"] == f"{flow.name}/{deployment['name']}"
    assert schedule["slug"] == kept["slug"]
    assert schedule["active"] == f"{{{{ {kept['id']}.active }}}}"
    # one that takes longer is not overtaken by the next
    assert deployment["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"


@pytest.mark.parametrize("kind", ("docker", "kubernetes"))
def test_the_pool_of_parents_asks_for_no_gpu(kind):
    wanted = {"docker": ("device_requests", []), "kubernetes": ("gpus", 0)}
    name, none = wanted[kind]
    templates = {pool: pool_template(FOLDER, kind, POOLS[pool]) for pool in POOLS}
    defaults = {
        pool: template["variables"]["properties"][name]["default"]
        for pool, template in templates.items()
    }
    assert defaults["cpu"] == none
    assert defaults["gpu"] != none


def test_a_default_of_no_variable_is_named():
    pool = {"defaults": {"docker": {"gpu": 1}}}
    with pytest.raises(PedfracError, match=r"defaults\.docker\.gpu: .* it has .*device_requests"):
        pool_template(FOLDER, "docker", pool)


@pytest.mark.parametrize("described", AUTOMATIONS, ids=lambda a: a["name"])
def test_automations_are_such_as_the_server_takes(described):
    AutomationCore.model_validate({"actions": [{"type": "do-nothing"}]} | described)
