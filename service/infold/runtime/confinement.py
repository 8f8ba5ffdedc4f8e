"""What a process does to itself before it opens a stranger's file: it steps back, and cannot take all.

This keeps accidents in, not attackers: a file that takes over the process has the rights of the service.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from infold.runtime.memory import machine_bytes

__all__ = ["bound_memory", "confine", "end_with", "tells_of_no_memory"]

NICE = 10
IS_FIRST_TO_GO = "1000"  # of all that the kernel may end where memory is short
PR_SET_PDEATHSIG = 1
# Of models with small files; above that, so many times their size. Optimizing holds a graph several times.
LEAST_BYTES, TIMES = 4 * 2**30, 8
# How the C++ library, Python and onnxruntime word it.
NO_MEMORY = ("bad_alloc", "MemoryError", "Failed to allocate memory", "Cannot allocate memory")


def confine(parent: int) -> None:
    """This process gives way to others, leaves no core dump, and does not outlive its parent.

    Args:
        parent: Whose process started this one.
    """
    with contextlib.suppress(OSError):
        os.nice(NICE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(IS_FIRST_TO_GO)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that was set
        os._exit(1)


def end_with(pipe: BinaryIO) -> None:
    """This process ends once a pipe is closed at its other end, where the system has no call for it."""

    def wait() -> None:
        pipe.read(1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def bound_memory(asked_bytes: int, files_bytes: int) -> int | None:
    """Let this process take so much more memory than it has, and write no larger file.

    Args:
        asked_bytes: 0 leaves it to the size of the files.
        files_bytes: Of the model.

    Returns:
        The bound; None where there is none, as anywhere but on Linux.
    """
    if not sys.platform.startswith("linux"):
        return None
    bound = asked_bytes or min(max(LEAST_BYTES, TIMES * files_bytes), machine_bytes())
    _limit(resource.RLIMIT_FSIZE, bound)
    _limit(resource.RLIMIT_DATA, _data_bytes() + bound)
    return bound


def tells_of_no_memory(text: str) -> bool:
    """What went wrong is that there was no memory left."""
    return any(each in text for each in NO_MEMORY)


def _limit(kind: int, wanted: int) -> None:
    _, most = resource.getrlimit(kind)
    resource.setrlimit(kind, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _data_bytes() -> int:
    """What counts against the limit already."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0
