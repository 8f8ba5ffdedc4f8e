"""The one thread that runs shadows, in time that nobody else wants.

It has the lowest priority there is, holds one run while it works on another, and
begins only while no request waits. It lives as long as there is a shadow.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from infold.serving.runners import clock
from infold.serving.sampling import Ran
from infold.serving.shadow import Shadow

__all__ = ["ShadowThread"]

log = logging.getLogger(__name__)

# How long a run may wait until no request does, and how often that is looked at.
PATIENCE_S = 1.0
LOOK_S = 0.005
LOWEST_PRIORITY = 19


class ShadowThread:
    """Repeats runs, one after another.

    Args:
        is_spare: No request waits; called in the thread.
        patience_s: How long a run is held until that is so.
    """

    def __init__(self, is_spare: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        self._is_spare = is_spare
        self._patience_s = patience_s
        self._changed = threading.Condition(threading.Lock())
        self._shadows: set[Shadow] = set()
        self._unopened: deque[Shadow] = deque()
        self._next_run: tuple[Shadow, Ran] | None = None
        self._thread: threading.Thread | None = None

    @property
    def has_room(self) -> bool:
        """See `Desk`."""
        return self._next_run is None

    def add(self, shadow: Shadow) -> None:
        """See `Desk`."""
        with self._changed:
            self._shadows.add(shadow)
            self._unopened.append(shadow)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="infold-shadow", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def put(self, shadow: Shadow, ran: Ran) -> bool:
        """See `Desk`."""
        with self._changed:
            if self._next_run is not None or shadow not in self._shadows:
                return False
            self._next_run = shadow, ran
            self._changed.notify_all()
            return True

    def remove(self, shadow: Shadow) -> None:
        """See `Desk`."""
        with self._changed:
            self._shadows.discard(shadow)
            with contextlib.suppress(ValueError):
                self._unopened.remove(shadow)
            if self._next_run is not None and self._next_run[0] is shadow:
                self._next_run = None
            self._changed.notify_all()

    def _work(self) -> None:
        _lower_priority()
        while (job := self._next_job()) is not None:
            try:
                job()
            except Exception:
                log.exception("a shadow's run was lost")
            del job  # or this thread would hold its tensors until the next one

    def _next_job(self) -> Callable[[], None] | None:
        """What is to be done; None once there is no shadow any more."""
        with self._changed:
            while self._shadows:
                if self._unopened:
                    return self._unopened.popleft().open
                if self._next_run is not None:
                    (shadow, ran), self._next_run = self._next_run, None
                    return partial(self._repeat, shadow, ran)
                self._changed.wait()
            self._thread = None
            return None

    def _repeat(self, shadow: Shadow, ran: Ran) -> None:
        """Do a run again as soon as no request waits, or give it up."""
        until = clock() + self._patience_s
        while not self._is_spare():
            left = until - clock()
            if left <= 0 or shadow.is_closed:
                shadow.drop()
                return
            with self._changed:
                self._changed.wait(min(left, LOOK_S))
        shadow.repeat(ran)


def _lower_priority() -> None:
    """Let every other thread go first; only Linux has that for a single one."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
