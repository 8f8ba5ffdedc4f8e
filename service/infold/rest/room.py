"""Memory that a long body is read into, laid out for the tensors in it."""

from __future__ import annotations

import numpy as np

__all__ = ["ALIGNMENT", "room_for"]

# Tensors in a body begin where their type may be read; 64 is a cache line.
ALIGNMENT = 64


def room_for(size: int, tensors_at: int) -> memoryview:
    """Memory of `size` bytes that is aligned from `tensors_at` on.

    It is not taken from the machine before it is written: asking for it costs next to nothing.

    Args:
        size: In bytes.
        tensors_at: Where in it tensors begin.
    """
    whole = np.empty(size + ALIGNMENT - 1, np.uint8)
    begin = int(whole.__array_interface__["data"][0])
    lead = -(begin + tensors_at) % ALIGNMENT
    return whole.data[lead : lead + size]
