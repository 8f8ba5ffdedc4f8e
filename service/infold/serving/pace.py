"""How long a queue will take, by what runs took lately: numbers in, numbers out.

Good for a hint to whoever is refused, and for telling a request at the door that it
cannot be answered in time. Where the two ways to be wrong differ, refusing somebody
who might have been answered is the worse one.
"""

from __future__ import annotations

import math

from infold.errors import QueueFullError, QueueTooLongError

__all__ = ["Pace"]

# The first runs of a session are slow by themselves; then so many make a mean.
UNCOUNTED_RUNS, SETTLED_RUNS = 3, 5
# What the newest run counts for in it.
WEIGHT = 0.2
SHORTEST_S, LONGEST_S = 1, 60


class Pace:
    """How fast the runs of one model get through their rows.

    Args:
        runs_at_once: As many as there may be.
        join_rows: Most rows that are joined in one.
    """

    __slots__ = ("_join_rows", "_rows", "_runs_at_once", "_seconds", "_seen")

    def __init__(self, runs_at_once: int, join_rows: int) -> None:
        self._runs_at_once = max(1, runs_at_once)
        self._join_rows = max(1, join_rows)
        self._seen = 0
        self._rows = 1.0  # means of one run
        self._seconds = 0.0

    @property
    def is_settled(self) -> bool:
        """There have been enough runs to tell."""
        return self._seen >= UNCOUNTED_RUNS + SETTLED_RUNS

    def ran(self, rows: int, seconds: float) -> None:
        """A run of so many rows has ended, and took so long."""
        self._seen += 1
        counted = self._seen - UNCOUNTED_RUNS
        if counted > 0:
            weight = max(WEIGHT, 1 / counted)
            self._rows += weight * (max(1, rows) - self._rows)
            self._seconds += weight * (seconds - self._seconds)

    def seconds_of(self, rows: int) -> float:
        """That so many rows take, as they did lately; 0 before that is known."""
        if not self.is_settled:
            return 0.0
        return rows * self._seconds / self._rows / self._runs_at_once

    def least_seconds_of(self, rows: int) -> float:
        """The same if they share runs as far as they may, and that makes no run longer."""
        if not self.is_settled:
            return 0.0
        runs = math.ceil(rows / self._join_rows)
        return min(self.seconds_of(rows), runs * self._seconds / self._runs_at_once)

    def retry_after_s(self, rows: int) -> int:
        """After how many seconds somebody may come again, where so many rows wait; 1 to 60."""
        return int(min(max(math.ceil(self.seconds_of(rows)), SHORTEST_S), LONGEST_S))

    def check_room(self, rows: int, capacity_rows: int, left_s: float) -> None:
        """Return if somebody may come now.

        Args:
            rows: That wait.
            capacity_rows: Most that may.
            left_s: Until the deadline of who comes.

        Raises:
            QueueFullError: There is no room.
            QueueTooLongError: There is no time.
        """
        if rows >= capacity_rows:
            raise QueueFullError(capacity_rows, self.retry_after_s(rows))
        self.check_time(rows, left_s)

    def check_time(self, rows: int, left_s: float) -> None:
        """As `check_room`, where there is room in any case."""
        if rows and (queue_s := self.least_seconds_of(rows)) > left_s:
            raise QueueTooLongError(queue_s, left_s, self.retry_after_s(rows))
