"""A quota: so many a second, and some at once. Pure; the clock is a number."""

from __future__ import annotations

__all__ = ["Bucket"]

# What sums of fractions of a second are off by, in tokens.
ROUNDING = 1e-6


class Bucket:
    """Fills up steadily; each request takes one out.

    Args:
        per_s: How fast it fills.
        burst: What it holds; it begins full.
    """

    __slots__ = ("_at", "_burst", "_level", "_per_s")

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = self._level = burst
        self._at = 0.0

    def take(self, now: float) -> float:
        """One is taken, and the result is 0; or none is, and it is the seconds until there is one."""
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._per_s)
        self._at = now
        if self._level + ROUNDING < 1:
            return (1 - self._level) / self._per_s
        self._level -= 1
        return 0.0
