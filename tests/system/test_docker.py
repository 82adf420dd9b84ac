"""The very commands of docker/compose.yaml as plain processes on loopback, and the images' checks.

No container is started: SQLite stands in for PostgreSQL, free ports for the published ones.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import botocore
import httpx
import mlflow
import pytest
import yaml
from botocore.exceptions import ClientError
from servers import free_ports

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
SERVERS = {"prefect": 4200, "mlflow": 5000, "s3": 8333}
ENTRYPOINTS = {"s3": ["weed"]}  # of images that are not ours
ONCE = {"secrets", "prefect-database", "mlflow-database", "init"}
MADE = ("HOME", "PREFECT_HOME", "TORCHINDUCTOR_CACHE_DIR", "HF_HOME")  # as start.sh wants them
START = 400  # seconds, on a busy machine; 20 on an idle one


def example_settings() -> dict[str, str]:
    lines = (DOCKER / "example.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def settings_of_a_user() -> dict[str, str]:
    """Return the example with its secrets filled in, as its first line asks."""
    secrets = {
        name: f"user:{name.lower()}" for name, value in example_settings().items() if not value
    }
    return example_settings() | secrets


def interpolated(settings: dict[str, str]) -> str:
    """Return the compose file with its variables filled in; one that is required must be there."""

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        return settings[name] if default is None else settings.get(name, default)

    pattern = r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)\}"
    text = re.sub(pattern, value, (DOCKER / "compose.yaml").read_text())
    assert "${" not in text
    return text


class PortTaken(Exception):
    """A server found its port in use."""


class Stack:
    """The services of the compose file, each started by its own command."""

    def __init__(self, folder: Path):
        self.folder = folder
        *ports, self.nothing = free_ports(len(SERVERS) + 1)
        self.ports = dict(zip(SERVERS, ports, strict=True))
        (folder / "config.yaml").touch()  # as /dev/null is there, where an operator names none
        self.processes: list[subprocess.Popen[bytes]] = []
        self.services: dict[str, Any] = yaml.safe_load(self._on_loopback())["services"]

    def _on_loopback(self) -> str:
        text = interpolated(settings_of_a_user())
        for name, port in SERVERS.items():
            text = text.replace(f"http://{name}:{port}", f"http://127.0.0.1:{port}")
        # all at once, since a new port may look like another service's old one
        pattern = "|".join(map(str, SERVERS.values()))
        new = {str(port): str(self.ports[name]) for name, port in SERVERS.items()}
        text = re.sub(pattern, lambda match: new[match[0]], text)
        for what, instead in {
            "0.0.0.0": "127.0.0.1",
            "-dir=/data": f"-dir={self.folder}",
            "postgresql+psycopg2:///mlflow": f"sqlite:///{self.folder}/mlflow.db",
            "/opt/pedfrac/": f"{DOCKER}/",
            "/etc/pedfrac/config.yaml": f"{self.folder}/config.yaml",
        }.items():
            assert what in text
            text = text.replace(what, instead)
        return text

    def environment(self, name: str) -> dict[str, str]:
        """Return what the container would see, on SQLite and with this installation."""
        given = self.services[name]["environment"]
        kept = {key: v for key, v in given.items() if not key.startswith("PREFECT_SERVER_DATABASE")}
        home = self.folder / name
        home.mkdir(exist_ok=True)
        return kept | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": f"http://127.0.0.1:{self.nothing}",  # no hub of weights to be reached
            "PREFECT_HOME": str(home),
            "HOME": str(home),
        }

    def start(self, name: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                ENTRYPOINTS.get(name, []) + self.services[name]["command"],
                cwd=ROOT,
                env=self.environment(name),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def start_all(self) -> None:
        started = {name: self.start(name) for name in SERVERS}
        for name, process in started.items():
            self.wait(name, process)

    def healthy(self, name: str) -> bool:
        """Run the service's own health check once."""
        _, *command = self.services[name]["healthcheck"]["test"]
        done = subprocess.run(
            command, env=self.environment(name), capture_output=True, timeout=30, check=False
        )
        return done.returncode == 0

    def wait(self, name: str, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START
        while not self.healthy(name):
            log = (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]
            if process.poll() is not None and "already in use" in log:
                raise PortTaken(log)
            assert process.poll() is None, f"{name} ended: {log}"
            assert time.monotonic() < until, f"{name} did not become healthy: {log}"
            time.sleep(0.5)

    def stop(self) -> None:
        running = [process for process in self.processes if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def s3(self, **changes: Any) -> Any:
        seen = self.environment("mlflow")
        return boto3.client(
            "s3",
            endpoint_url=seen["AWS_ENDPOINT_URL"],
            region_name=seen["AWS_DEFAULT_REGION"],
            **{
                "aws_access_key_id": seen["AWS_ACCESS_KEY_ID"],
                "aws_secret_access_key": seen["AWS_SECRET_ACCESS_KEY"],
            }
            | changes,
        )

    def prefect(self, method: str, path: str, content: Any = None) -> httpx.Response:
        seen = self.environment("init")
        user, password = seen["PREFECT_API_AUTH_STRING"].split(":")
        url = seen["PREFECT_API_URL"] + path
        return httpx.request(method, url, json=content, auth=(user, password), timeout=30)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Prefect, MLflow and SeaweedFS, up and healthy by their own checks."""
    for last in (False, False, True):
        made = Stack(tmp_path_factory.mktemp("stack"))
        try:
            made.start_all()
        except PortTaken:  # by another process, after it was found free
            made.stop()
            if last:
                raise
            continue
        break
    try:
        yield made
    finally:
        made.stop()


def test_services_are_pinned_watched_and_on_loopback():
    services = yaml.safe_load(interpolated(settings_of_a_user()))["services"]
    for name, service in services.items():
        assert re.search(r":(\d+\.\d+|cpu$|gpu$)", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        once = service["restart"] == "no"
        assert once == (name in ONCE)
        assert once or service["healthcheck"]["test"]


def test_everything_waits_for_what_it_needs():
    services = yaml.safe_load(interpolated(settings_of_a_user()))["services"]
    done, up = "service_completed_successfully", "service_healthy"
    for name, needed in {
        "postgres": {"secrets": done},
        "s3": {"secrets": done},
        "prefect-database": {"postgres": up},
        "mlflow-database": {"postgres": up},
        "prefect": {"prefect-database": done},
        "mlflow": {"mlflow-database": done, "s3": up},
        "init": {"prefect": up, "mlflow": up, "s3": up},
        "worker-cpu": {"init": done},
        "worker-gpu": {"init": done},
        "worker-no-gpu": {"init": done},
    }.items():
        waits = services[name]["depends_on"]
        assert {other: how["condition"] for other, how in waits.items()} == needed, name


def test_our_containers_have_a_read_only_root():
    services = yaml.safe_load(interpolated(settings_of_a_user()))["services"]
    ours = {name for name, one in services.items() if one["image"].startswith("pedfrac:")}
    assert ours == services.keys() - {"postgres", "s3"}
    assert all(services[name]["read_only"] and services[name]["tmpfs"] for name in ours)


def test_the_operators_file_is_mounted_where_it_is_read():
    """``init`` deploys by it, and the gate judges by it, in a worker."""
    mine = settings_of_a_user() | {"PEDFRAC_CONFIG": "/srv/mine.yaml"}
    for settings, source in ((settings_of_a_user(), "/dev/null"), (mine, "/srv/mine.yaml")):
        services = yaml.safe_load(interpolated(settings))["services"]
        for name in ("init", "worker-cpu", "worker-gpu", "worker-no-gpu"):
            target = services[name]["environment"]["PEDFRAC_CONFIG"]
            (mount,) = (
                one
                for one in services[name]["volumes"]
                if isinstance(one, dict) and one["target"] == target
            )
            assert (mount["source"], mount["read_only"]) == (source, True)


def test_no_secret_has_a_value_of_its_own():
    secrets = re.findall(
        r"^ +(\w*(?:PASSWORD|SECRET|AUTH)\w*): (.*)", (DOCKER / "compose.yaml").read_text(), re.M
    )
    assert len(secrets) >= 6
    for name, value in secrets:
        assert re.fullmatch(r"\$\{\w+:\?set it in docker/.env\}", value), name
    examples = {v for k, v in example_settings().items() if re.search("PASSWORD|SECRET|AUTH", k)}
    assert examples == {""}


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "PREFECT_AUTH", "S3_SECRET_ACCESS_KEY"])
def test_nothing_starts_on_the_secret_of_an_example(tmp_path, name):
    """The container's first command, without a container."""
    assert "change-me" not in str(settings_of_a_user())
    refused = begun(tmp_path, settings_of_a_user() | {name: "admin:change-me"})
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"{name}: 'change-me' is an example")
    assert len(refused.stderr.splitlines()) == 1 and not refused.stdout
    assert begun(tmp_path, settings_of_a_user()).stdout == "started\n"


def begun(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run start.sh as the image does, with its own place for the scripts."""
    script = (DOCKER / "start.sh").read_text()
    assert "/opt/pedfrac/" in script
    (folder / "start.sh").write_text(script.replace("/opt/pedfrac/", f"{DOCKER}/"))
    made = {name: str(folder / name) for name in MADE}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", folder / "start.sh", "echo", "started"],
        env=environment | made | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_has_no_volume_goes_where_every_container_can_write(tmp_path):
    """The folders that the image names, none of which can be made."""
    script = (DOCKER / "start.sh").read_text().replace("/opt/pedfrac/", f"{DOCKER}/")
    (tmp_path / "start.sh").write_text(script)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", tmp_path / "start.sh", "python", "-c", "import torch._inductor.utils"],
        env=dict.fromkeys(MADE, "/proc/nowhere") | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_servers_refuse_strangers(stack):
    api = stack.environment("init")["PREFECT_API_URL"]
    assert httpx.get(f"{api}/admin/version").status_code == 401
    assert stack.prefect("GET", "/admin/version").text == '"3.8.8"'
    for keys in (
        {"aws_secret_access_key": "guessed"},
        {"config": botocore.config.Config(signature_version=botocore.UNSIGNED)},
    ):
        with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|AccessDenied"):
            stack.s3(**keys).list_buckets()
    # a page elsewhere whose name leads to this machine must not read MLflow through a browser
    search = f"{stack.environment('init')['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/search"
    answers = {
        host: httpx.get(
            search, params={"max_results": 1}, headers={"Host": f"{host}:{stack.ports['mlflow']}"}
        ).status_code
        for host in ("mlflow", "localhost", "evil.example")
    }
    assert answers == {"mlflow": 200, "localhost": 200, "evil.example": 403}


def test_browser_is_told_where_the_api_is(stack):
    settings = httpx.get(f"http://127.0.0.1:{stack.ports['prefect']}/ui-settings").json()
    assert settings["api_url"] == f"http://127.0.0.1:{stack.ports['prefect']}/api"
    assert (settings["auth"], settings["default_ui"]) == ("BASIC", "v1")


def test_artifacts_of_mlflow_end_in_the_bucket(stack, tmp_path):
    (tmp_path / "metric.txt").write_text("0.98")
    client = mlflow.MlflowClient(stack.environment("init")["MLFLOW_TRACKING_URI"])
    run = client.create_run(client.create_experiment("proxied"))
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    client.log_artifact(run.info.run_id, str(tmp_path / "metric.txt"))
    keys = [o["Key"] for o in stack.s3().list_objects_v2(Bucket="pedfrac")["Contents"]]
    assert any(key.startswith("mlflow/") and key.endswith("/metric.txt") for key in keys)


@pytest.mark.parametrize("kind", ["process", "docker", "kubernetes"])
def test_templates_are_taken_by_the_server(stack, kind):
    template = json.loads((ROOT / f"deployments/templates/{kind}.json").read_text())
    pool = {"name": f"try-{kind}", "type": kind, "base_job_template": template}
    assert stack.prefect("POST", "/work_pools/", pool).status_code == 201
    # every name in the job is that of a variable, or the server refuses it
    del template["variables"]["properties"]["stream_output"]
    refused = stack.prefect("POST", "/work_pools/", pool | {"name": "broken"})
    assert refused.status_code == 422


def test_init_makes_the_server_ready_and_a_worker_comes_and_goes(stack):
    assert stack.start("init").wait(START) == 0, (stack.folder / "init.log").read_text()
    deployments = {d["name"] for d in stack.prefect("POST", "/deployments/filter", {}).json()}
    assert {"retrain", "train-fracture", "train-age"} <= deployments
    told = (stack.folder / "init.log").read_text()
    assert "fracture.model.weights is 'hub', and timm/" in told.replace("\n", " ")
    assert not stack.healthy("worker-cpu")
    worker = stack.start("worker-cpu")
    stack.wait("worker-cpu", worker)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
