"""What deployments/ describes: entrypoints that load, pools with their defaults, automations."""

from pathlib import Path

import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore
from prefect.flows import load_flow_from_entrypoint

from flows.infrastructure.pools import pool_template
from pedfrac.errors import PedfracError

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


def test_networks_run_on_the_gpu_pool_and_parents_do_not():
    pools = {deployment["name"]: deployment["work_pool"]["name"] for deployment in DEPLOYMENTS}
    assert {name for name, pool in pools.items() if pool == "gpu"} == {
        "train-age",
        "train-fracture",
        "score-fold",
        "assess-bundle",
        "try-training",
        "predict",
    }


def test_nothing_waits_in_a_slot_that_others_need():
    queues = {one["name"]: one["work_pool"]["work_queue_name"] for one in DEPLOYMENTS}
    waiting = {name for name, queue in queues.items() if queue.startswith("waiting-")}
    scheduled = {"retrain-weekly", "retrain-after-drift"}
    assert waiting == {"retrain", "search", "evaluate", "explain"} | scheduled
    assert {name for name, queue in queues.items() if queue == "prediction"} == {"predict-watch"}
    assert POOLS["cpu"]["queues"]["prediction"]["concurrency_limit"] == 1


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
