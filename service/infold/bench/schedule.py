"""When requests of an open loop leave, at which rates, and where a server's knee is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from infold.bench.outcomes import Load

__all__ = ["Knee", "arrivals", "auto_rates", "falls_away", "knee"]

# Shares of the closed loop's peak that an open loop asks for.
SHARES = (0.2, 0.4, 0.6, 0.8, 0.9, 1.1, 1.5)
# A row is beyond the knee if its p99 is more than this many times the p50 of the lightest load,
KNEE_FACTOR = 3.0
# or if less than this share of what was asked for was answered.
KEEPS_UP = 0.9
# Goodput has fallen away below this share of the best so far.
FALLS_AWAY = 0.8


@dataclass(frozen=True, slots=True)
class Knee:
    """Where an open loop bends.

    Attributes:
        rate: The highest rate that is carried with ease; None if not even the lowest.
        why: What happens at the next one; None if there was none.
    """

    rate: float | None
    why: str | None


def arrivals(rate: float, seconds: float, rng: Generator) -> NDArray[np.float64]:
    """Poisson arrivals: times in [0, seconds), rising, with independent exponential gaps.

    Args:
        rate: Mean arrivals a second.
        seconds: Length of the schedule.
        rng: Where the gaps are drawn from.
    """
    expected = rate * seconds
    times = np.cumsum(rng.exponential(1 / rate, int(expected + 6 * expected**0.5) + 16))
    while times[-1] < seconds:
        more = np.cumsum(rng.exponential(1 / rate, len(times)))
        times = np.concatenate([times, times[-1] + more])
    return times[times < seconds]


def auto_rates(peak: float) -> tuple[float, ...]:
    """Rates around a closed loop's peak, in requests a second, rising."""
    return tuple(float(f"{share * peak:.3g}") for share in SHARES)


def falls_away(loads: Sequence[Load]) -> bool:
    """The last load brought clearly fewer right answers a second than the best before it."""
    best = max((load.answers_per_s for load in loads), default=0.0)
    return bool(loads) and loads[-1].answers_per_s < FALLS_AWAY * best


def knee(loads: Sequence[Load]) -> Knee:
    """The highest rate that the server still carries with ease.

    It is the last before the first at which the p99 exceeds three times the p50 of the lightest
    load, or less than nine tenths of what was asked for was answered.

    Args:
        loads: Rows of an open loop, by rising rate.
    """
    found = None
    for load in loads:
        if load.answers_per_s < KEEPS_UP * load.asked_per_s:
            return Knee(found, "answers fall behind")
        if not load.latencies.p99_ms <= KNEE_FACTOR * loads[0].latencies.p50_ms:
            return Knee(found, f"p99 exceeds {KNEE_FACTOR:g} x the p50 of the lightest load")
        found = load.load
    return Knee(found, None)
