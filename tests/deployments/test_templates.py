"""Job templates of the work pools, read by the class that Prefect's own workers read them with.

docker/check.sh goes further, with the workers of Docker and Kubernetes pools.
"""

import asyncio
import json
from pathlib import Path

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.workers.base import BaseJobConfiguration
from prefect.workers.process import ProcessJobConfiguration

TEMPLATES = Path(__file__).parents[2] / "deployments/templates"
KINDS = ("process", "docker", "kubernetes")


def render(configuration, kind, **job_variables):
    template = json.loads((TEMPLATES / f"{kind}.json").read_text())
    # no block is named in a template, so that no server is asked for one
    nobody = PrefectClient("http://127.0.0.1:1/api")
    return asyncio.run(
        configuration.from_template_and_values(template, job_variables, client=nobody)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_deployments_environment_is_added_to_the_defaults(kind):
    env = {"PEDFRAC_ARTIFACTS": "s3://elsewhere", "PREFECT_CLIENT_MAX_RETRIES": "2"}
    made = render(BaseJobConfiguration, kind, env=env)
    assert made.env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert made.env["PREFECT_LOGGING_EXTRA_LOGGERS"] == "pedfrac,flows,tasks"
    assert made.env["PREFECT_CLIENT_MAX_RETRIES"] == "2"
    assert made.env["PEDFRAC_ARTIFACTS"] == "s3://elsewhere"


def test_a_process_outlives_its_worker_by_default():
    made = render(ProcessJobConfiguration, "process")
    assert made.stream_output is False
    assert made.working_dir is None
