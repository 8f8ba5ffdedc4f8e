"""Files that may be replaced while they are in use: has one of them been?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["Watched"]

EVERY_S = 1.0
# A file may be written twice in one tick of its clock. Until it has been left alone for so long,
# it counts as changed.
SETTLED_S = 2.0

Mark = tuple[int, int, int, int, int]


class Watched:
    """Looks at some files, once a second at most and only when asked.

    Args:
        paths: Of the files; links are followed.
        clock: Says when it is time to look again.
        today: The time as files have it.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], float] = time.time,
    ) -> None:
        self._paths = paths
        self._clock = clock
        self._today = today
        self._next = float("-inf")
        self._marks: list[Mark | None] = []
        self._is_settled = False

    def may_have_changed(self) -> bool:
        """One of them is not as it was, or may not be; True at the first call."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + EVERY_S
        marks = [_mark_of(path) for path in self._paths]
        if marks == self._marks and self._is_settled:
            return False
        self._marks = marks
        latest = self._today() - SETTLED_S
        self._is_settled = all(mark is None or max(mark[:2]) / 1e9 < latest for mark in marks)
        return True


def _mark_of(path: Path) -> Mark | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev
