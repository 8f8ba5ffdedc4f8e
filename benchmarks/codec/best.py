"""The least time that functions take, measured in turn."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Effort", "least"]

SHORTEST_S = 2e-3  # of one measurement; what is quicker is called several times in it
# Measurements in a row: the first finds the caches as the call before it left them.
IN_A_ROW, LONG_S = 3, 0.1  # no more than one where it takes so long


@dataclass(frozen=True)
class Effort:
    """How long is measured: rounds go on until both are reached."""

    rounds: int
    seconds: float


def least(calls: Mapping[str, Callable[[], object]], effort: Effort) -> dict[str, float]:
    """Seconds of one call of each, the least of all rounds.

    Every round measures all of them, so a busy moment of the machine bothers all alike, and the
    least is what they take when nobody bothers. Garbage is collected between rounds only.
    """
    counts = {name: _count(call) for name, call in calls.items()}
    found = dict.fromkeys(calls, float("inf"))
    began, done = time.perf_counter(), 0
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        while done < effort.rounds or time.perf_counter() - began < effort.seconds:
            for name, call in calls.items():
                found[name] = min(found[name], _turn(call, counts[name]))
            gc.collect()
            done += 1
    finally:
        if was_enabled:
            gc.enable()
    return found


def _turn(call: Callable[[], object], count: int) -> float:
    seconds = _timed(call, count)
    for _ in range(IN_A_ROW - 1):
        if seconds * count > LONG_S:
            break
        seconds = min(seconds, _timed(call, count))
    return seconds


def _timed(call: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def _count(call: Callable[[], object]) -> int:
    """Calls that make a measurement long enough; they are the warm-up too."""
    count = 1
    while (seconds := _timed(call, count) * count) < SHORTEST_S:
        count *= min(10, max(2, int(SHORTEST_S / max(seconds, 1e-7))))
    return count
