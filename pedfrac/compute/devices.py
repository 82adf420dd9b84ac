"""Devices: which CPU or GPU a name means here."""

import torch

from pedfrac.errors import PedfracError


def resolve_device(name: str) -> torch.device:
    """Return the device of a name: ``auto`` (a GPU if there is one), cpu, cuda or cuda:N."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device: torch.device | None
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise PedfracError(f"device {name!r}: allowed are auto, cpu, cuda and cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise PedfracError(f"device {name!r}: {torch.cuda.device_count()} GPUs are visible here")
    return device


def resolve_devices(name: str, devices: str) -> list[torch.device]:
    """Return the devices of one training: ``one``, ``all`` GPUs here, or a number of them.

    Without a GPU a number means processes on the CPU, and ``all`` means one. Raises PedfracError
    where the name is unknown or fewer GPUs are visible.
    """
    device = resolve_device(name)
    if devices == "one":
        return [device]
    if device.type != "cuda":
        return [device] * (1 if devices == "all" else int(devices))
    visible = torch.cuda.device_count()
    count = visible if devices == "all" else int(devices)
    if count > visible:
        raise PedfracError(f"runtime.devices {devices}: {visible} GPUs are visible here")
    return [torch.device("cuda", index) for index in range(count)]
