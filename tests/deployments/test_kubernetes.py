"""The manifests for Kubernetes: what each pod may do, and that they run what compose.yaml runs.

Not here: their schema, which docker/check.sh holds them against.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    document
    for path in sorted((ROOT / "deployments/kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
WORKLOADS = {one["metadata"]["name"]: one for one in DOCUMENTS if "template" in one.get("spec", {})}
COMPOSE = yaml.safe_load(
    re.sub(r"\$\{S3_BUCKET[^}]*\}", "$(S3_BUCKET)", (ROOT / "docker/compose.yaml").read_text())
)


def pod(name: str) -> Any:
    return WORKLOADS[name]["spec"]["template"]["spec"]


def containers(name: str) -> list[Any]:
    return [*pod(name).get("initContainers", ()), *pod(name)["containers"]]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_may_do_nothing_that_it_need_not(name):
    assert pod(name)["securityContext"]["runAsNonRoot"] is True
    assert pod(name)["automountServiceAccountToken"] is False
    for container in containers(name):
        assert container["securityContext"] == {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"]["memory"]
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("name", WORKLOADS)
def test_what_is_mounted_and_referred_to_is_there(name):
    volumes = {one["name"] for one in pod(name).get("volumes", ())}
    volumes |= {
        c["metadata"]["name"] for c in WORKLOADS[name]["spec"].get("volumeClaimTemplates", ())
    }
    maps = {one["metadata"]["name"]: one["data"] for one in DOCUMENTS if one["kind"] == "ConfigMap"}
    for container in containers(name):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        for variable in container.get("env", ()):
            if reference := variable.get("valueFrom", {}).get("configMapKeyRef"):
                assert reference["key"] in maps[reference["name"]]


def test_secrets_are_there_by_reference_only_and_all_from_one_secret():
    keys = set()
    for name in WORKLOADS:
        for container in containers(name):
            for variable in container.get("env", ()):
                if re.search("PASSWORD|SECRET|AUTH_STRING|ACCESS_KEY", variable["name"]):
                    assert variable["valueFrom"]["secretKeyRef"]["name"] == "pedfrac"
                    keys.add(variable["valueFrom"]["secretKeyRef"]["key"])
    page = (ROOT / "docs/kubernetes.md").read_text()
    assert set(re.findall(r"--from-literal=(\S+?)=", page)) == keys


@pytest.mark.parametrize(
    "name, service",
    [
        ("prefect", "prefect"),
        ("mlflow", "mlflow"),
        ("worker-cpu", "worker-cpu"),
        ("worker-gpu", "worker-gpu"),
        ("pedfrac-deploy", "init"),
    ],
)
def test_they_run_what_compose_runs(name, service):
    (container,) = pod(name)["containers"]
    assert container["args"] == COMPOSE["services"][service]["command"]
    assert container["image"] == COMPOSE["services"][service]["image"]
    if name in ("prefect", "mlflow"):
        (migration,) = pod(name)["initContainers"]
        assert migration["args"] == COMPOSE["services"][f"{name}-database"]["command"]


def test_trainings_have_a_device_shared_memory_and_may_run_on_spot_nodes():
    (container,) = pod("worker-gpu")["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    (memory,) = [
        v["emptyDir"] for v in pod("worker-gpu")["volumes"] if v["name"] == "shared-memory"
    ]
    assert memory["medium"] == "Memory"
    spot = json.dumps(pod("worker-gpu")["affinity"]), json.dumps(pod("worker-gpu")["tolerations"])
    assert all("spot" in one for one in spot)
    assert "affinity" not in pod("worker-cpu")  # a parent lost with its node costs a retraining
