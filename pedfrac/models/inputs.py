"""Network input: uint8 images to float tensors on a device."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_input(images: Tensor) -> Tensor:
    """Return uint8 images (n, size, size) as network input: float (n, 1, size, size), 0…1."""
    return images[:, None].float() / 255


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return values of the CPU on a device; the host does not wait for it."""
    pinned = values.pin_memory() if device.type == "cuda" else values
    return pinned.to(device, non_blocking=True)


def to_images(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return uint8 images (n, size, size) as network input: float (n, 1, size, size) in 0…1."""
    return to_input(torch.from_numpy(images).to(device, non_blocking=True))
