"""Measured numbers in as many digits as a reader can use, and what is said of the noise."""

from __future__ import annotations

import math

__all__ = ["ms", "noise_note", "rate"]


def rate(value: float) -> str:
    """How many a second."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ms(value: float) -> str:
    """Milliseconds; a dash where nothing was measured."""
    return "-" if math.isnan(value) else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def noise_note(others: str, used: float, cores: int) -> str:
    """What kept the machine busy beside the measured thing."""
    return f"{others} used {used:.1f} of {cores} cores meanwhile"
