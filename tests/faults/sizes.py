"""How much is tried: `FAULTS_SIZE` is 1 for `make test-faults`, `SOAK_SIZE` is 1 for `make soak`."""

from __future__ import annotations

import os

__all__ = ["FAULTS", "SOAK", "scaled"]

FAULTS = float(os.environ.get("FAULTS_SIZE", "1"))
# Beside the faults it runs for as long as shows that it still does.
SOAK = float(os.environ.get("SOAK_SIZE", str(FAULTS / 60)))


def scaled(count: int, least: int = 1) -> int:
    """A count of faults at the size that was asked for; never fewer than `least`."""
    return max(least, round(count * FAULTS))
