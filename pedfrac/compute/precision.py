"""Arithmetic: with what numbers a training computes on its device, and what compiling needs there.

Not here: what is computed (learner).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from pedfrac.config.training import Precision

LARGE = 10_000_000  # parameters; ConvNeXt V2 atto has 3.4 million, tiny 28


def chosen(precision: Precision, device: torch.device, network: nn.Module) -> Precision:
    """Return the arithmetic of a network on a device, where ``auto`` leaves it to them.

    On a processor that multiplies bf16, networks of LARGE and more are two to three times as fast
    in it; small ones lose by the conversions what they gain.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if multiplies_bf16(device) else "tf32"
    large = sum(parameter.numel() for parameter in network.parameters()) >= LARGE
    return "bf16" if large and multiplies_bf16(device) else "fp32"


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether a device multiplies bf16 itself; emulated it is many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # of processors torch tells this of x86 alone
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which a network computes in the chosen arithmetic."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


@contextmanager
def float32(precision: Precision, device: torch.device) -> Iterator[None]:
    """Let a GPU round what it multiplies as float32 to TF32's 10 bits, or for ``fp32`` to none.

    Torch by itself does so in convolutions and not in matrices.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def can_compile() -> bool:
    """Return whether torch.compile finds the compiler that it needs beside torch."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None
