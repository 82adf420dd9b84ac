"""Renders the work-pool templates with Prefect's own worker classes and validates what they make.

Run by check.sh, since those classes come with packages that only the workers of such pools install.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

SECRET = "admin:clear-text"
# before Prefect is imported, since it reads its settings once: a worker that has the secret itself
os.environ |= {"PREFECT_API_URL": "http://prefect:4200/api", "PREFECT_API_AUTH_STRING": SECRET}

import kubernetes_validate  # noqa: E402
from docker.models.containers import _create_container_args  # noqa: E402
from prefect.client.schemas.objects import FlowRun  # noqa: E402
from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration  # noqa: E402
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration  # noqa: E402

TEMPLATES = Path(__file__).parents[1] / "deployments/templates"
KUBERNETES = "1.37"


def render(kind: str, configuration: Any, **job_variables: Any) -> Any:
    """Return the worker's configuration of a flow run whose deployment has these job variables."""
    template = json.loads((TEMPLATES / f"{kind}.json").read_text())
    made = asyncio.run(configuration.from_template_and_values(template, job_variables))
    made.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="brave-otter"))
    return made


def check_kubernetes(**job_variables: Any) -> dict[str, Any]:
    """Validate the job and return its container: the secret must be there by reference only."""
    made = render("kubernetes", KubernetesWorkerJobConfiguration, **job_variables)
    job = made.job_manifest
    assert SECRET not in json.dumps(job), "the worker's secret stands in the job in clear text"
    pod = job["spec"]["template"]["spec"]
    for name in ("completions", "parallelism"):
        pod.pop(name)  # Prefect demands them here, where Kubernetes ignores them
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    (container,) = pod["containers"]
    by_reference = [entry["name"] for entry in container["env"] if "valueFrom" in entry]
    assert by_reference == ["PREFECT_API_AUTH_STRING", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["args"] == ["prefect", "flow-run", "execute"]
    found: dict[str, Any] = container
    return found


def check_docker(**job_variables: Any) -> dict[str, Any]:
    """Return the request for a container as the Docker client would send it."""
    made = render("docker", DockerWorkerJobConfiguration, **job_variables)

    class Daemon:  # only asked for its version
        def version(self) -> dict[str, str]:
            return {"Version": "28.0.0"}

    settings = DockerWorker._build_container_settings(None, Daemon(), made)  # type: ignore[arg-type]
    found: dict[str, Any] = _create_container_args(settings | {"version": "1.47"})
    return found


def main() -> None:
    """Check the defaults and what a deployment commonly changes."""
    container = check_kubernetes()
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    env = {"PEDFRAC_ARTIFACTS": "s3://elsewhere/runs"}
    container = check_kubernetes(
        gpus=0,
        image="registry.example/pedfrac:cpu",
        env=env,
        node_selector={"disk": "fast"},
        cache={"name": "cache", "persistentVolumeClaim": {"claimName": "pedfrac"}},
    )
    values = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert values["PEDFRAC_ARTIFACTS"] == env["PEDFRAC_ARTIFACTS"]
    assert values["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30", "defaults are lost beside others"

    host = check_docker()["host_config"]
    gpu = {"Driver": "nvidia", "DeviceIDs": ["0"], "Capabilities": [["gpu"]]}
    assert gpu.items() <= host["DeviceRequests"][0].items(), host["DeviceRequests"]
    assert (host["ShmSize"], host["CapDrop"], host["Init"]) == (2 * 1024**3, ["ALL"], True)
    assert not check_docker(device_requests=[])["host_config"].get("DeviceRequests")
    print("Kubernetes jobs and Docker containers: valid")


if __name__ == "__main__":
    main()
