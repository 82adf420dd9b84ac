"""Memory of a process: what a batch frees is kept for the next one.

Not here: how much memory a batch needs, and memory of a GPU, which PyTorch keeps itself.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
NEVER, LARGE = -1, 2**30


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, up to the most it needed at a time.

    By default glibc returns blocks of more than 32 MB to the system at once, which must clear
    every page again for the next layer: with large images that is a good third of a network's time
    on a CPU. With any other C library nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(M_TRIM_THRESHOLD, NEVER)
    mallopt(M_MMAP_THRESHOLD, LARGE)
