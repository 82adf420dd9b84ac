"""Memory that was freed is kept, in a process of its own, since there is no way back."""

import ctypes
import subprocess
import sys

import pytest

FREED = """
import ctypes, sys
from pathlib import Path
from pedfrac.compute.malloc import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
block = libc.malloc(ctypes.c_size_t(100 << 20))
libc.memset(ctypes.c_void_p(block), 1, ctypes.c_size_t(100 << 20))
libc.free(ctypes.c_void_p(block))
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_is_freed_stays_with_the_process():
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("the C library is not glibc")
    kept, given_back = (
        int(subprocess.check_output([sys.executable, "-c", FREED, how], timeout=60))
        for how in ("kept", "given back")
    )
    assert given_back < 100 << 10 < kept, "kB"
