"""How much is tried: `FUZZ_SIZE` is 1 for `make fuzz`, less in a hurry, more overnight."""

from __future__ import annotations

import os

__all__ = ["scaled"]

SIZE = float(os.environ.get("FUZZ_SIZE", "1"))


def scaled(count: int) -> int:
    """A count of examples at the size that was asked for; never none."""
    return max(5, round(count * SIZE))
