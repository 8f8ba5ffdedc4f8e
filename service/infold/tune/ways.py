"""What is measured: ways to share out the cores, and numbers of rows. Pure: no clock, no session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Cell", "Way", "buckets", "is_worth_measuring", "ways"]


@dataclass(frozen=True, slots=True)
class Way:
    """How cores are shared out.

    Attributes:
        threads: Inside one run.
        runs: At once.
    """

    threads: int
    runs: int

    def __str__(self) -> str:
        return f"{counted(self.runs, 'run')} x {counted(self.threads, 'thread')}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement.

    Attributes:
        version: Of the model.
        rows: In each run.
        rows_per_s: Of all runs together, in the middle one of the rounds.
        p50_ms, p99_ms: Of one run.
        runs: That were timed.
        spread: How far apart the rounds are in rows a second, as a share of the middle one.
    """

    version: int
    way: Way
    rows: int
    rows_per_s: float
    p50_ms: float
    p99_ms: float
    runs: int = 0
    spread: float = 0.0

    @property
    def reply_ms(self) -> float:
        """A slow run behind an ordinary one, since a request may just have missed a batch."""
        return self.p50_ms + self.p99_ms


def ways(cores: int) -> list[Way]:
    """All that are measured: 1, 2, 4, ... and all threads, with as many runs as then fit, and with one.

    One run of one row is what a request meets that is alone.
    """
    found = []
    for threads in doubled_up_to(cores):
        most = cores // threads
        found += [Way(threads, runs) for runs in ((most, 1) if most > 1 else (1,))]
    return found


def buckets(max_rows: int, *, is_joinable: bool) -> list[int]:
    """Numbers of rows: 1, 2, 4, ... and the most; 1 alone where requests cannot share a run."""
    return doubled_up_to(max_rows) if is_joinable else [1]


def is_worth_measuring(
    rows: int, found: Sequence[Cell], seconds: float, latency_ms: float | None = None
) -> bool:
    """Whether runs of so many rows can be of use.

    Args:
        rows: The next bucket.
        found: Cells of the same way, of fewer rows, the largest last; the first is always measured.
        seconds: That a run may take: predicted from the last cell, as if every row took its share.
        latency_ms: What a reply may take. Once two ordinary runs are beyond it, larger ones are too.
    """
    if not found:
        return True
    last = found[-1]
    if latency_ms is not None and 2 * last.p50_ms > latency_ms:
        return False
    return last.p50_ms * rows / last.rows <= 1000 * seconds


def doubled_up_to(most: int) -> list[int]:
    """1, 2, 4, ... as far as it goes, and the end itself."""
    return [*(2**n for n in range(most.bit_length()) if 2**n < most), most]


def counted(number: int, thing: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
