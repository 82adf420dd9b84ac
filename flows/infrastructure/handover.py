"""What a child hands to its parent: the key of what it made, and where that lies.

The key travels in the message of the child's final state, which any machine can read from the
server; results would need storage that both reach.
"""

import socket
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from pedfrac.config.retrain import RetrainConfig
from pedfrac.pipeline.keys import store_of
from pedfrac.storage.inputs import Inputs
from pedfrac.storage.uri import is_remote

AT = " at "


def made(config: RetrainConfig, key: str) -> Any:
    """Return the final state of a child flow that made an artifact; its caller gets the key."""
    address = store_of(config).address(key)
    if not is_remote(address):
        address = f"{socket.gethostname()}:{Path(address).resolve()}"
    return Completed(message=f"{key}{AT}{address}", data=key)


def explain_missing(name: str, state: State[Any], expected: Inputs, config: RetrainConfig) -> str:
    """Return why a child's artifact is not where its parent looks, though the run completed.

    ``name``: what the child makes, in words; ``expected``: its inputs as the parent has them.
    """
    key, _, address = (state.message or "").partition(AT)
    store = store_of(config)
    if key == expected.key:
        return (
            f"{name}: its run completed and left {key} at {address}, but nothing is at "
            f"{store.address(key)}: workers and retraining must share one artifact store"
        )
    said = f"{name}: its run completed, but made {key or 'nothing'} instead of {expected.key}"
    if key and store.exists(key):
        own = Inputs.of_manifest(store.peek(key).manifest)
        said += ": " + "; ".join(own.differences(expected))
    return said
