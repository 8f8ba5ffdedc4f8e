"""How far what was served is from what its shadow gives to the same rows; pure arrays."""

from __future__ import annotations

import math

import numpy as np

from infold.tensors import Array, Tensors, kind_of

__all__ = ["divergence", "worst"]


def worst(served: Tensors, shadow: Tensors) -> tuple[str, float]:
    """The output that diverges most, and how far; the first of equals, and nothing of nothing."""
    found = {name: divergence(array, shadow[name]) for name, array in served.items()}
    name = max(found, key=lambda each: found[each], default="")
    return name, found.get(name, 0.0)


def divergence(served: Array, shadow: Array) -> float:
    """How far one output is from the shadow's.

    Of floats the largest difference over the shadow's largest finite magnitude; of anything else
    the share of elements that differ. NaN equals NaN, an infinity itself.

    Returns:
        0 where nothing differs; infinitely far where the shapes differ, where one has a number and
        the other none, and where the shadow is 0 all over and the other is not.
    """
    if served.shape != shadow.shape:
        return math.inf
    if not served.size:
        return 0.0
    if kind_of(served.dtype) != "f":
        return int(np.count_nonzero(served != shadow)) / served.size
    a, b = served.astype(np.float64), shadow.astype(np.float64)
    off = (a != b) & ~(np.isnan(a) & np.isnan(b))
    if not off.any():
        return 0.0
    largest = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    a, b = a[off], b[off]
    if not largest or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.inf
    with np.errstate(over="ignore"):
        return float(np.abs(a - b).max()) / largest
