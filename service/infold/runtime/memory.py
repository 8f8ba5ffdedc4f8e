"""Memory: what this process may have of it, and freed memory, given back to the machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from infold.runtime.cgroups import memory_limit

__all__ = ["give_back", "host_bytes", "machine_bytes"]


def give_back() -> None:
    """Let the C library return what is free; where it has no call for that, nothing happens.

    glibc keeps it for the next allocation, and after a large model has been optimized
    that is twice the model's size.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def machine_bytes(root: Path = Path("/")) -> int:
    """Memory of the machine, or of the cgroup of this process where that allows less.

    Args:
        root: Where `sys/fs/cgroup` and `proc` lie; another place in tests.
    """
    host, limit = host_bytes(), memory_limit(root)
    return host if limit is None else min(host, int(limit.value))


def host_bytes() -> int:
    """Memory of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
