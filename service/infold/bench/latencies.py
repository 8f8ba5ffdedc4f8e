"""What a list of latencies says in four numbers. Pure: no clock, no server."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Latencies", "latencies"]


@dataclass(frozen=True, slots=True)
class Latencies:
    """Percentiles in milliseconds; all NaN where nothing was answered."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


def latencies(seconds: Sequence[float] | NDArray[np.float64]) -> Latencies:
    """Percentiles of latencies given in seconds; each is one that was really measured."""
    if not len(seconds):
        return Latencies(math.nan, math.nan, math.nan, math.nan)
    found = 1000 * np.percentile(np.asarray(seconds), [50, 90, 99, 100], method="inverted_cdf")
    return Latencies(*(float(each) for each in found))
