"""The workers of one machine: one per GPU, monitored, restarted and stopped together.

A worker takes one run at a time, which sees only its GPU. When a worker stops, its lost run is
reported to the server at once, so that the retraining can start it elsewhere.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed

from pedfrac.errors import PedfracError

logger = logging.getLogger(__name__)
LOOK = 1.0  # seconds between looks at the workers
LONGEST_PAUSE = 60.0  # seconds between starts of a worker that keeps dying
GRACE = 30.0  # seconds that a worker is given to stop
DEFAULTS = {"PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}


# Queues of a pool that a worker of their own serves, by the beginning of their names, and how many
# runs it takes: parents do little but wait, and what waits must not hold a slot that others need.
OWN_WORKERS = {"waiting-": 8, "prediction": 1}


@dataclass
class Slot:
    """Room for one run: a worker, the environment that binds it, and the runs seen below it.

    ``queues``: those that it serves, none: all of the pool. ``limit``: runs at a time.
    """

    name: str
    environment: dict[str, str]
    queues: tuple[str, ...] = ()
    limit: int = 1
    worker: subprocess.Popen[bytes] | None = None
    runs: dict[UUID, set[psutil.Process]] = field(default_factory=dict)
    deaths: int = 0
    not_before: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether the worker is running."""
        return self.worker is not None and self.worker.poll() is None


def run_workers(pool: str, slots: int | None) -> None:
    """Keep workers of a pool running until SIGTERM or SIGINT; see ``slots_here`` for how many.

    Raises PedfracError where the server has no such pool.
    """
    all_slots = serving(slots_here(pool, slots), _queues_of(pool), pool)
    logger.warning("%s: %s", pool, ", ".join(slot.name for slot in all_slots))
    with _stop_signals() as stopped:
        while not stopped:
            for slot in all_slots:
                _tend(slot, pool)
            time.sleep(LOOK)
    _stop(all_slots)


def slots_here(pool: str, slots: int | None) -> list[Slot]:
    """Return a slot for each visible GPU, or ``slots`` of the CPU with its cores shared out.

    Raises PedfracError where there is no GPU and no number of slots was given.
    """
    host = socket.gethostname()
    if slots is None:
        devices = _visible_gpus()
        if not devices:
            raise PedfracError("no GPU is visible here; give the number of CPU slots with --slots")
        return [
            Slot(f"{host}-{pool}-gpu{device}", {"CUDA_VISIBLE_DEVICES": device})
            for device in devices
        ]
    threads = str(max(1, (os.cpu_count() or 1) // slots))
    shared = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    return [Slot(f"{host}-{pool}-{number}", shared) for number in range(slots)]


def serving(slots: list[Slot], queues: list[str], pool: str) -> list[Slot]:
    """Return slots that leave some queues to workers of their own, and those workers."""
    own = {
        begins: tuple(name for name in queues if name.startswith(begins)) for begins in OWN_WORKERS
    }
    taken = {name for names in own.values() for name in names}
    if not taken:
        return slots
    for slot in slots:
        slot.queues = tuple(name for name in queues if name not in taken)
    host, environment = socket.gethostname(), slots[0].environment
    more = [
        Slot(f"{host}-{pool}-{begins.strip('-')}", environment, names, OWN_WORKERS[begins])
        for begins, names in own.items()
        if names
    ]
    return slots + more


def _visible_gpus() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device for device in named.split(",") if device.strip()]
    import torch  # seconds to import, and needed here alone

    return [str(number) for number in range(torch.cuda.device_count())]


def _queues_of(pool: str) -> list[str]:
    """Return the names of a pool's queues; raise PedfracError where there is no such pool."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
            return [queue.name for queue in client.read_work_queues(work_pool_name=pool)]
        except ObjectNotFound:
            raise PedfracError(
                f"--pool {pool}: the server has no such pool; 'pedfrac pools' makes them"
            ) from None
        except httpx.TransportError as error:
            raise PedfracError(f"{client.api_url}: no Prefect server answers ({error})") from None


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Yield a list that a SIGTERM or SIGINT fills."""
    received: list[int] = []
    wanted = (signal.SIGTERM, signal.SIGINT)
    # also where the shell that started this in the background had SIGINT ignored
    before = {number: signal.signal(number, lambda n, _: received.append(n)) for number in wanted}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tend(slot: Slot, pool: str) -> None:
    """Look after one worker: learn what it runs, or clear up after it and start it again."""
    if slot.alive:
        # of those that ended, the worker itself tells the server
        living = {run: processes for run, processes in slot.runs.items() if _live(processes)}
        slot.runs = living | _runs_below(slot.worker)
        return
    if slot.worker is not None:
        code, slot.worker = slot.worker.returncode, None
        slot.deaths += 1
        slot.not_before = time.monotonic() + min(LONGEST_PAUSE, 2.0**slot.deaths)
        logger.warning("%s: its worker ended with exit code %s", slot.name, code)
    living = {run: processes for run, processes in slot.runs.items() if _live(processes)}
    if living and slot.limit == 1:
        return  # a run outlived its worker: the device is its own until it ends
    slot.runs = {run: slot.runs[run] for run in slot.runs.keys() - living.keys()}
    settled = _settle(slot)
    slot.runs |= living
    if settled and time.monotonic() >= slot.not_before:
        slot.worker = _start(slot, pool)


def _start(slot: Slot, pool: str) -> subprocess.Popen[bytes]:
    command = ["worker", "start", "--pool", pool, "--type", "process"]
    command += ["--limit", str(slot.limit)]
    command += [word for queue in slot.queues for word in ("--work-queue", queue)]
    return subprocess.Popen(
        [sys.executable, "-m", "prefect", *command, "--name", slot.name],
        env=DEFAULTS | os.environ | slot.environment,
        # Ctrl-C in a terminal reaches this process alone, which stops the workers in order
        start_new_session=True,
    )


def _runs_below(worker: subprocess.Popen[bytes] | None) -> dict[UUID, set[psutil.Process]]:
    """Return all processes below a worker by the flow run that they were started for."""
    found: dict[UUID, set[psutil.Process]] = {}
    try:
        below = psutil.Process(worker.pid).children(recursive=True) if worker else []
    except psutil.Error:
        return found
    for process in below:
        # one may be gone between the listing and the look
        with suppress(psutil.Error):
            run = process.environ().get("PREFECT__FLOW_RUN_ID")
            if run:
                found.setdefault(UUID(run), set()).add(process)
    return found


def _live(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that have not ended."""
    living = []
    for process in processes:
        with suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


def _settle(slot: Slot) -> bool:
    """Report to the server which runs ended with their worker; return whether it was reachable."""
    try:
        with get_client(sync_client=True) as client:
            for run in list(slot.runs):
                _settle_run(client, run, slot.name)
                del slot.runs[run]
    except httpx.HTTPError as error:
        logger.warning("%s: the server cannot be told of lost runs yet (%s)", slot.name, error)
        return False
    return True


def _settle_run(client: Any, run: UUID, name: str) -> None:
    state = client.read_flow_run(run).state
    if state is None or state.is_final():
        return
    message = f"Its worker {name} was stopped or lost"
    cancelled = state.type == StateType.CANCELLING
    end: State[Any] = Cancelled(message=message) if cancelled else Crashed(message=message)
    client.set_flow_run_state(run, end, force=True)
    logger.warning("%s: run %s %s", name, run, end.name.lower() if end.name else "ended")


def _stop(slots: list[Slot]) -> None:
    """Stop all workers and their runs, and report the interrupted runs to the server."""
    for slot in slots:
        if slot.alive and slot.worker is not None:
            slot.runs |= _runs_below(slot.worker)
            slot.worker.terminate()
    until = time.monotonic() + GRACE
    for slot in slots:
        if slot.worker is not None:
            try:
                slot.worker.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                slot.worker.kill()
                slot.worker.wait()
    left = [p for slot in slots for processes in slot.runs.values() for p in _live(processes)]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)
    for slot in slots:
        _settle(slot)
