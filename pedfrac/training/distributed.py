"""One training on several devices of this machine: its processes, and what they say to each other.

The caller starts every process, the first too, and only watches and listens: MLflow and Prefect
stay where they are, and it is never caught in a collective whose partner died, from which NCCL
would not wake it. torchrun's launcher has no way to call back, and its signal handlers want the
main thread, which a Prefect task does not have. Not here: what the processes compute.
"""

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil
import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from pedfrac.compute.main_guard import require_main_guard
from pedfrac.errors import PedfracError

LOOK = 1.0  # seconds between chances to interrupt the caller
GRACE = 1.0  # seconds after a failure in which its cause may still be heard of
LONGEST_WAIT = timedelta(hours=1)  # of one process for another that lives
Tell = Callable[[Any], None]
Work = Callable[["Ranks", torch.device, Tell], None]


@dataclass(frozen=True)
class Ranks:
    """The ranks of one training as seen by one of them; a single rank needs no communication."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def share(self, positions: Tensor) -> Tensor:
        """Return this rank's part of positions (n,); parts differ in length by one at most."""
        return positions.tensor_split(self.size)[self.rank]

    def whole(self, part: Tensor, places: Tensor, count: int) -> Tensor:
        """Return all rows (count, …), of which each rank gives its ``part``, at its ``places``.

        Every rank gets the same bits, so that all decide alike by them.
        """
        if self.size == 1:
            return part
        rows = torch.zeros(count, *part.shape[1:], dtype=part.dtype)
        rows[places] = part.cpu()
        dist.all_reduce(rows)  # a sum in which all but one are zero
        return rows

    def with_batch_norm(self, model: nn.Module) -> nn.Module:
        """Return the model with batch normalisation, if it has any, over the whole batch.

        Raises PedfracError on a CPU: torch synchronises batch normalisation on GPUs only.
        """
        if self.size == 1 or not any(isinstance(m, _BatchNorm) for m in model.modules()):
            return model
        if next(model.parameters()).device.type != "cuda":
            raise PedfracError(
                "the backbone has batch normalisation, which several CPU processes cannot train "
                "together; set runtime.devices: one, or take a backbone without it"
            )
        return convert_sync_batchnorm(model)

    def joined(self, model: nn.Module) -> nn.Module:
        """Return the model to train: a backward pass leaves the mean of all ranks' gradients.

        All ranks wait here for each other and take over the first one's weights.
        """
        if self.size == 1:
            return model
        device = next(model.parameters()).device
        devices = [device] if device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices)

    def gathering(self, joined: nn.Module, now: bool) -> AbstractContextManager[Any]:
        """Return the context of a step; gradients stay with their rank unless it is ``now``."""
        if now or not isinstance(joined, DistributedDataParallel):
            return nullcontext()
        return joined.no_sync()

    def wait(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))


ALONE = Ranks()


@dataclass(frozen=True)
class _Process:
    name: str
    process: Any  # of the spawn context
    connection: Connection


@dataclass(frozen=True)
class _Failure:
    """Why a process ended: ``expected`` is one clear line, else there is a traceback."""

    when: float
    reason: str
    expected: bool


def run_together(
    work: Work, devices: Sequence[torch.device], name: str, on_message: Callable[[Any], None]
) -> None:
    """Run ``work(ranks, device, tell)`` in a process for each device until all are done.

    Messages of the first process reach ``on_message`` here, and that process waits until it
    returns; if it raises, all processes end. They also end with the caller, however it ends.
    ``work`` is pickled between these processes of one program. Raises the PedfracError of a
    process, a PedfracError with ``name`` where one dies, and RuntimeError for any other error.
    """
    processes: list[_Process] = []
    with tempfile.TemporaryDirectory(prefix="pedfrac-") as meeting:
        try:
            for rank, device in enumerate(devices):
                ranks = Ranks(rank, len(devices))
                processes.append(_start(work, ranks, device, name, Path(meeting) / "store"))
            _listen(processes, on_message)
        finally:
            for one in processes:
                one.process.kill()
            for one in processes:
                one.process.join()
                one.connection.close()


def _start(work: Work, ranks: Ranks, device: torch.device, name: str, store: Path) -> _Process:
    require_main_guard()
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    level = logging.getLogger("pedfrac").getEffectiveLevel()
    process = context.Process(
        target=_take_part, args=(work, ranks, device, store, there, level), daemon=True
    )
    process.start()
    there.close()  # so that the pipe ends with the process
    return _Process(f"{name}: process {ranks.rank + 1} of {ranks.size} ({device})", process, here)


def _listen(processes: Sequence[_Process], on_message: Callable[[Any], None]) -> None:
    living = {one.connection: one for one in processes}
    failures: list[_Failure] = []
    until = float("inf")
    while living and time.monotonic() < until:
        for connection in wait(list(living), LOOK if not failures else GRACE / 10):
            one = living[connection]  # type: ignore[index]
            said = _hear(one)
            if said is None or isinstance(said, _Failure):
                del living[one.connection]
            if isinstance(said, _Failure):
                failures.append(said)
                until = min(until, time.monotonic() + GRACE)
            elif isinstance(said, logging.LogRecord):
                logging.getLogger(said.name).handle(said)
            elif said is not None and not failures:
                on_message(said.content)
                one.connection.send(None)
    if failures:
        # the others fail, too, since they miss the one that failed first
        first = min(failures, key=lambda failure: failure.when)
        raise (PedfracError if first.expected else RuntimeError)(first.reason)


@dataclass(frozen=True)
class _Message:
    content: Any


def _hear(one: _Process) -> _Message | _Failure | logging.LogRecord | None:
    """Return the message of a process or how it ended; None where it finished."""
    try:
        return one.connection.recv()
    except (EOFError, OSError):
        one.process.join()
    code = one.process.exitcode
    if code == 0:
        return None
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    hint = ", as a machine out of memory does" if code == -signal.SIGKILL else ""
    reason = f"{one.name} {ended}{hint}; another run goes on after the last finished epoch"
    return _Failure(-float("inf"), reason, expected=True)


def _take_part(
    work: Work, ranks: Ranks, device: torch.device, store: Path, caller: Connection, level: int
) -> None:
    """Body of each process."""
    end_with_caller()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to a whole group: the caller decides
    torch.set_num_threads(max(1, torch.get_num_threads() // ranks.size))
    if ranks.first:
        _relay_logs(caller, level)

    def tell(content: Any) -> None:
        caller.send(_Message(content))
        caller.recv()

    try:
        with _group(ranks, device, store):
            work(ranks, device, tell)
    except Exception as error:
        expected = isinstance(error, PedfracError)
        reason = str(error) if expected else traceback.format_exc()
        caller.send(_Failure(time.time(), reason, expected))
        _end(1)  # the orderly end of a group would wait for its members
    _end(0)  # the orderly end of an interpreter with torch takes a second


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def end_with_caller() -> None:
    """End this child process as soon as its parent ends, however that happens."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _relay_logs(caller: Connection, level: int) -> None:
    class Relay(QueueHandler):
        def enqueue(self, record: logging.LogRecord) -> None:
            caller.send(record)

    library = logging.getLogger("pedfrac")
    library.setLevel(level)
    library.addHandler(Relay(None))  # type: ignore[arg-type]
    library.propagate = False


@contextmanager
def _group(ranks: Ranks, device: torch.device, store: Path) -> Iterator[None]:
    """Join the group: NCCL between GPUs, Gloo for what lies in memory, both on loopback."""
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", _loopback())
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        # a file, since a port would be open to others and might be taken
        store=dist.FileStore(str(store), ranks.size),
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=LONGEST_WAIT,
    )
    yield
    dist.destroy_process_group()


def _loopback() -> str:
    """Return the name of the network interface that reaches this machine only."""
    return next(
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(address.address == "127.0.0.1" for address in addresses)
    )
