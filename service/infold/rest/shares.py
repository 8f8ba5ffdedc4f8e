"""How many connections each worker holds, in a page of memory that all of them see.

Only a hint for who should take the next connection, so nobody locks: a slot is
written by its worker alone, or by the supervisor once that worker is gone.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile

__all__ = ["Shares", "open_shares"]

ABSENT = -1
SLOT_BYTES = 4


def open_shares(workers: int) -> int:
    """The descriptor of a new page of memory with a slot for each worker, all absent."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("infold-shares")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, workers * SLOT_BYTES)
    shares = Shares(descriptor, workers)
    for worker in range(workers):
        shares.leave(worker)
    return descriptor


class Shares:
    """The page.

    Args:
        descriptor: As `open_shares` gave it; may be closed afterwards.
        workers: How many slots it has.
    """

    def __init__(self, descriptor: int, workers: int) -> None:
        self._held = memoryview(mmap.mmap(descriptor, workers * SLOT_BYTES)).cast("i")

    def hold(self, worker: int, connections: int) -> None:
        """Show the others how many connections this worker holds."""
        self._held[worker] = connections

    def leave(self, worker: int) -> None:
        """Nobody need spare a connection for this worker."""
        self._held[worker] = ABSENT

    def is_turn_of(self, worker: int) -> bool:
        """No other worker that is there holds fewer connections."""
        own = self._held[worker]
        return all(held >= own or held == ABSENT for held in self._held)
