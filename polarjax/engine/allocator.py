"""What the process does with memory that it frees. Without JAX."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Any

# Numbers of mallopt(3), and the variable by which a user sets the same.
SETTINGS = {
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1),  # the end of the heap is given back beyond so many bytes
    "MALLOC_MMAP_MAX_": (-4, 0),  # so many blocks may be mapped by themselves, and given back when freed
}


def keep_freed_memory(environment: Mapping[str, str] = os.environ, libc: Any = None) -> list[str]:
    """Lets glibc keep large blocks that are freed.

    A step on a CPU allocates and frees the same blocks each time; given back to the system in between, every page of
    them is cleared and mapped anew in every step. Peak memory stays what it was, but is held until the process ends.

    Args:
      environment: what it sets already stays as it is.
      libc: the C library; None for that of the process.

    Returns:
      Names of the settings that were made; none where the C library is not glibc.
    """
    library = ctypes.CDLL(None) if libc is None else libc
    choose = getattr(library, "mallopt", None)
    if choose is None:
        return []
    return [name for name, pair in SETTINGS.items() if name not in environment and choose(*pair)]
