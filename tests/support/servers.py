"""Real S3 servers for tests, each a process of its own on loopback, ended by its pid."""

import json
import random
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import boto3

KEY, SECRET = "test-key", "test-secret"


@dataclass(frozen=True)
class S3Server:
    """A running server; ``environment`` is what a process needs to reach it."""

    endpoint: str
    process: subprocess.Popen

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.endpoint)

    @cached_property
    def client(self):
        """A client of its own, which does not depend on this process's environment."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )


def environment(endpoint: str) -> dict[str, str]:
    """Return the variables that point boto3 to a server or to a proxy before it."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@contextmanager
def seaweed(folder: Path) -> Iterator[S3Server]:
    """Run SeaweedFS in a folder, without its telemetry and on loopback only."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = free_ports(5)
    names = ("s3.port", "master.port", "filer.port", "volume.port", "admin.port")
    options = {
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.config": folder / "s3.json",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "webdav": "false",
        "admin.ui": "false",
        "master.telemetry": "false",
        # each bucket takes a volume, of which a disk by default holds one a gigabyte that is free
        "volume.max": 1000,
        **dict(zip(names, ports, strict=True)),
    }
    arguments = [f"-{name}={value}" for name, value in options.items()]
    with _running([program("weed"), "mini", *arguments], folder, ports[0]) as server:
        yield server


@contextmanager
def rclone(folder: Path) -> Iterator[S3Server]:
    """Run rclone's S3 server over a folder; it ignores conditional puts without a word."""
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    arguments = ["serve", "s3", folder / "objects", "--addr", f"127.0.0.1:{port}"]
    keys = ["--auth-key", f"{KEY},{SECRET}", "--config", folder / "none.conf"]
    with _running([program("rclone"), *arguments, *keys], folder, port) as server:
        yield server


def program(name: str) -> str:
    """Return the path of a program that came with a Python package."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    assert found, f"{name} is not installed (pip install '.[dev]')"
    return found


_given: set[int] = set()


def free_ports(number: int) -> list[int]:
    """Return free ports, each once in a process, that leave room for SeaweedFS's second ones.

    Those lie 10,000 above. All are below what systems give to outgoing connections.
    """
    found: list[int] = []
    while len(found) < number:
        port = random.randint(11_000, 21_000)
        if port not in _given and _is_free(port) and _is_free(port + 10_000):
            found.append(port)
            _given.update((port, port + 10_000))
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def _running(command: Sequence[object], folder: Path, port: int) -> Iterator[S3Server]:
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [str(word) for word in command], cwd=folder, stdout=log, stderr=log
        )
    try:
        _wait(process, port, folder / "log")
        yield S3Server(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)  # it would take ten to say goodbye
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen, port: int, log: Path) -> None:
    server = S3Server(f"http://127.0.0.1:{port}", process)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.client.list_buckets()
            return
        except Exception:
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
