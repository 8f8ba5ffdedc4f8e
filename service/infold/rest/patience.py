"""What a connection waits for its client to do, and until when: knows no socket and no clock.

Three things a client may be slow at: sending the headers of a request, sending the
rest of a body that nobody wants any more, and reading its answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["LEAST_BYTES_PER_S", "Late", "Patience"]

# Who reads more slowly than this does not read.
LEAST_BYTES_PER_S = 2**15


class Late(Enum):
    """What a client did not do in time."""

    HEAD = auto()
    REST = auto()
    READING = auto()


@dataclass(slots=True, eq=False)
class Patience:
    """Times, in seconds of the caller's clock.

    Attributes:
        head_s: That headers may take.
        rest_s: Within which the next request must have begun after one that was answered before all
            of it had come.
        reading_s: That an answer may stay unread.
        head_since: When the headers began that are not complete; None where there are none.
        rest_since: When such a request was answered; None where none was.
        reading_since: When the client had last read a fair part of its answer; None while it reads.
        unread_bytes: Of the answer, then.
    """

    head_s: float
    rest_s: float
    reading_s: float
    head_since: float | None = None
    rest_since: float | None = None
    reading_since: float | None = None
    unread_bytes: int = 0

    def due(self) -> float | None:
        """When to look next; None where nothing is waited for."""
        times = [
            since + most
            for since, most in (
                (self.head_since, self.head_s),
                (self.rest_since, self.rest_s),
                (self.reading_since, self.reading_s),
            )
            if since is not None
        ]
        return min(times, default=None)

    def wait_for_reading(self, now: float, unread_bytes: int) -> None:
        """The client has that much of its answer to read before anything else happens."""
        if self.reading_since is None:
            self.reading_since, self.unread_bytes = now, unread_bytes

    def late(self, now: float, unread_bytes: int) -> Late | None:
        """What the client was to have done by now, if anything.

        Args:
            now: The time.
            unread_bytes: Of its answer, now.
        """
        if self.reading_since is not None and now >= self.reading_since + self.reading_s:
            fair = int(LEAST_BYTES_PER_S * self.reading_s)
            if unread_bytes > max(0, self.unread_bytes - fair):
                return Late.READING
            self.reading_since, self.unread_bytes = now if unread_bytes else None, unread_bytes
        if self.head_since is not None and now >= self.head_since + self.head_s:
            return Late.HEAD
        if self.rest_since is not None and now >= self.rest_since + self.rest_s:
            return Late.REST
        return None
