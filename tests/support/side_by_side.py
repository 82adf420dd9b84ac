"""A parent with children in processes of their own, which end in every way; one JSON at the end.

Run as a program: its arguments are the names of children, which say what becomes of them.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from prefect import flow
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

from flows.infrastructure.dispatch import dispatch
from pedfrac.config.retrain import RetrainConfig
from pedfrac.errors import PedfracError

PARALLEL = 2


class File(NamedTuple):
    """A file that a child writes."""

    config: RetrainConfig
    name: str

    @property
    def key(self) -> str:
        return f"{self.name}.json"

    @property
    def done(self) -> bool:
        return Path(self.key).exists()


@flow
def child(name: str) -> str:
    """Leave a file with what the process is like, fail, be killed or stay, as the name says."""
    if name == "fails":
        raise PedfracError("no images")
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    told = {"process": os.getpid(), "threads": torch.get_num_threads()}
    Path(f"{name}.json").write_text(json.dumps(told))
    while name == "stays":
        time.sleep(0.1)
    return f"{name}.json"


@flow
def parent(names: list[str]) -> dict[str, Any]:
    """Return what became of each child: what dispatch returned, or its error; and own threads."""
    config = RetrainConfig.model_validate(
        {"data": {"root": "."}, "runtime": {"parallel": PARALLEL}}
    )
    with ThreadPoolTaskRunner(max_workers=PARALLEL) as runner:
        ended = {
            name: runner.submit(
                dispatch,
                {
                    "name": name,
                    "child": child,
                    "work": File(config, name),
                    "given": {"name": name},
                },
            )
            for name in names
        }
        wait(list(ended.values()))
        said = {
            name: str(future.state.result(raise_on_failure=False)) for name, future in ended.items()
        }
    return {"threads": torch.get_num_threads(), "children": said}


if __name__ == "__main__":
    # by the name that a child imports it by
    import side_by_side

    print(json.dumps(side_by_side.parent(sys.argv[1:])))
