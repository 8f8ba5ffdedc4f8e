"""What became of every request of one load, and its summary in one row."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np

from infold.bench.latencies import Latencies, latencies

__all__ = ["Kind", "Load", "Loop", "Outcomes", "Window"]


class Kind(IntEnum):
    """How a request ended."""

    RIGHT = 0
    REFUSED = 1
    FAILED = 2
    WRONG = 3
    UNANSWERED = 4


class Loop(StrEnum):
    """Who decides when the next request leaves."""

    BARE = "bare"
    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a load that counts, on the monotonic clock in seconds."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Load:
    """One row of the result.

    Attributes:
        loop: Who decided when the next request left.
        load: Callers of a closed loop, requests a second of an open one, threads of a bare one.
        answers_per_s: Right answers a second.
        latencies: From when a request was due to its last byte. A request that was given up
            counts with the time it had waited.
        refused: Answers 503 and 429.
        failed: Every other answer that is not 200, lost connections, and requests given up.
        wrong: Answers that differ from the reference.
        late_ms: 99th percentile of how much later than due the client itself sent.
        asked_per_s: Requests that really were due; random arrivals miss their rate a little.
    """

    loop: Loop
    load: float
    answers_per_s: float
    latencies: Latencies
    refused: int = 0
    failed: int = 0
    wrong: int = 0
    late_ms: float = 0.0
    asked_per_s: float = 0.0


class Outcomes:
    """One entry a request, in the order in which they ended."""

    def __init__(self) -> None:
        self.due = array("d")
        self.ended = array("d")
        self.kinds = bytearray()
        self.late = array("d")

    def add(self, due: float, ended: float, kind: Kind) -> int:
        """Keep one, and return its index."""
        self.due.append(due)
        self.ended.append(ended)
        self.kinds.append(kind)
        return len(self.kinds) - 1

    def summary(self, loop: Loop, load: float, window: Window) -> Load:
        """The row of this load.

        Answers count where they ended inside the window, which is fair to an overloaded
        server. Everything else counts where it was due inside it, for then it cannot matter
        how long it took.
        """
        due, ended = np.array(self.due), np.array(self.ended)
        kinds = np.frombuffer(bytes(self.kinds), np.uint8)
        ends_inside = (ended >= window.start) & (ended < window.end)
        counted = (due >= window.start) & (due < window.end)
        timed = counted & ((kinds == Kind.RIGHT) | (kinds == Kind.UNANSWERED))
        late = np.array(self.late)
        return Load(
            loop,
            load,
            int((ends_inside & (kinds == Kind.RIGHT)).sum()) / window.seconds,
            latencies((ended - due)[timed]),
            int((counted & (kinds == Kind.REFUSED)).sum()),
            int((counted & ((kinds == Kind.FAILED) | (kinds == Kind.UNANSWERED))).sum()),
            int((kinds == Kind.WRONG).sum()),  # also outside the window: a wrong answer is never warm-up
            1000 * float(np.percentile(late, 99)) if len(late) else 0.0,
            int(counted.sum()) / window.seconds,
        )
