"""What a service stands on gives way: the disk is full, the wall clock jumps."""

from __future__ import annotations

import resource
from datetime import UTC, datetime

from faults.models import LINE
from faults.stage import Stage

__all__ = ["clock_jump", "disk_full"]

HOUR, DAY = 3600.0, 86400.0


def disk_full(stage: Stage) -> str:
    """Nothing more can be written, not even a byte: a version is swapped in all the same, and not cached."""
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in stage.host.workers.values()}
    try:
        for pid, (_, hard) in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
        stage.swap(LINE)
    finally:
        for pid, limits in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    return "swapped without a cache"


def clock_jump(stage: Stage) -> str:
    """Forward by an hour, then back by a day, then right again: nobody who is asked should notice."""
    for seconds in (HOUR, -DAY, 0.0):
        stage.clock.jump(seconds)
        stage.swap(LINE)
        told = stage.host.time_told - datetime.now(UTC)
        assert abs(told.total_seconds() - seconds) < HOUR / 2, "the clock of the server has not moved"
        late = [each for each in stage.ledger.refused if each.startswith("504")]
        assert not late, f"a deadline was missed by {seconds:+} s of the wall clock: {late}"
    return "nobody noticed"
