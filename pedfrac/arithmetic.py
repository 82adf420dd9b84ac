"""Arithmetic: with what numbers a training computes on its device, and what compiling needs there.

Not here: what is computed (learner).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from pedfrac.config import Precision


def computes_bf16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 in hardware, and so faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # of processors torch tells this of x86 alone
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which a network computes: bf16 where that is asked for, or auto."""
    if precision == "bf16" or (precision == "auto" and computes_bf16(device)):
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
