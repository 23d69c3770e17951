"""glibc's heap, told to keep what the encoders will ask for again a moment later.

By default every freed block of a few MB goes back to the kernel, and the next chunk of audio faults
its pages in anew: up to a third of a run on a CPU (docs/performance.md). What is kept goes back
once the worker has had nothing to do for a moment (`workers.worker_main`).
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 256 << 20
_LARGEST_BYTES = 32 << 20
"""The most that glibc takes for a block of the heap on 64 bits (mallopt(3))."""


def keep() -> None:
    """Hold on to freed memory; nothing where the C library is another one."""
    if library := _glibc():
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _glibc() -> Any:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
