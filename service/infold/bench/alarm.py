"""Wakes an event loop at a time to well under a millisecond, which its own timers do not.

uvloop and asyncio round timers to whole milliseconds: as long as a whole answer of a small
model. Linux has timers that are files; elsewhere the loop's own have to do.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

__all__ = ["Alarm"]

CLOCK_MONOTONIC = 1
ABSOLUTE = 1
NONBLOCKING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class Alarm:
    """Calls back at one time after the other, on the clock of `time.monotonic`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self._libc = ctypes.CDLL(None)
        self._file = -1
        if hasattr(self._libc, "timerfd_create"):
            self._file = self._libc.timerfd_create(CLOCK_MONOTONIC, NONBLOCKING)
        if self._file >= 0:
            loop.add_reader(self._file, self._expired)

    def set(self, at: float) -> None:
        """Ring at that time; a time that has passed rings at once. Replaces the last one."""
        if self._file < 0:
            self.cancel()
            self._handle = self._loop.call_later(max(0.0, at - time.monotonic()), self._ring)
            return
        seconds, fraction = divmod(max(at, 1e-6), 1)
        # No repetition: two zeros; then when, in seconds and nanoseconds.
        when = (ctypes.c_long * 4)(0, 0, int(seconds), int(1e9 * fraction))
        self._libc.timerfd_settime(self._file, ABSOLUTE, ctypes.byref(when), None)

    def cancel(self) -> None:
        """Do not ring."""
        if self._handle is not None:
            self._handle.cancel()

    def close(self) -> None:
        """Give the timer back."""
        self.cancel()
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _expired(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:  # it was set anew meanwhile
            return
        self._ring()
