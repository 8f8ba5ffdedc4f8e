"""When requests of an open loop leave, at which rates, and where a server's knee is. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from infold.bench.outcomes import Load

__all__ = ["arrivals", "auto_rates", "falls_away", "knee"]

# Shares of the closed loop's peak that an open loop asks for.
SHARES = (0.2, 0.4, 0.6, 0.8, 0.9, 1.1, 1.5)
# A row is beyond the knee if its p99 is more than this many times the p50 of the lightest load,
KNEE_FACTOR = 3.0
# or if less than this share of what was asked for was answered.
KEEPS_UP = 0.9
# Goodput has fallen away below this share of the best so far.
FALLS_AWAY = 0.8


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


def knee(loads: Sequence[Load]) -> float | None:
    """The highest rate that the server still carries with ease, or None if not even the lowest.

    Args:
        loads: Rows of an open loop, by rising rate.

    Returns:
        The last rate before the first at which the p99 exceeds three times the p50 of the
        lightest load, or at which less than nine tenths were answered.
    """
    found = None
    for load in loads:
        steady = load.latencies.p99_ms <= KNEE_FACTOR * loads[0].latencies.p50_ms
        if not steady or load.answers_per_s < KEEPS_UP * load.load:
            break
        found = load.load
    return found
