"""Taking turns: what is compared is timed round by round, so that other work slows all alike.

Not a benchmark: what those that compare speeds share.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def take_turns(works: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, np.ndarray]:
    """Return the seconds (rounds,) of each work; who goes first changes from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        # backwards every other time, so that none always follows the same other
        for name in list(works)[:: (-1) ** number]:
            began = time.perf_counter()
            works[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: np.array(each) for name, each in seconds.items()}


def spread(values: np.ndarray, digits: int = 3) -> str:
    """Return the median of values with the quantiles .1 and .9."""
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def machine(device: "torch.device") -> str:
    """Return what computes: the GPU's name, or how many cores of which kind."""
    if device.type == "cuda":
        import torch  # not above, since processes that decode images import this file

        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} cores ({platform.machine()})"
