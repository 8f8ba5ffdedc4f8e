"""Large arrays a block at a time, so that float64 copies of them stay small."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from infold.fold.affine import F64
from infold.tensors import Array

__all__ = ["Index", "Limit", "Scaled", "blocks", "mean_square", "peak"]

# Elements of one block: 8 MiB of float64.
BLOCK_ELEMENTS = 2**20

Index = tuple[slice, ...]
# Something known for every element of an array, asked for block by block; broadcasts against the block.
Limit = Callable[[Index], Array]


def blocks(shape: tuple[int, ...], limit: int = BLOCK_ELEMENTS) -> Iterator[Index]:
    """Indices that cut an array of that shape into blocks of at most `limit` elements, in order."""
    if not shape:
        yield ()
        return
    row = math.prod(shape[1:])
    if row <= limit:
        step = max(1, limit // max(1, row))
        for start in range(0, shape[0], step):
            yield (slice(start, start + step), *(slice(None) for _ in shape[1:]))
        return
    for start in range(shape[0]):
        for rest in blocks(shape[1:], limit):
            yield (slice(start, start + 1), *rest)


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """An array times a factor, multiplied in float64 as it is read."""

    array: Array
    factor: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.array.shape

    def __getitem__(self, index: Index) -> F64:
        return self.array[index].astype(np.float64) * self.factor


def peak(shape: tuple[int, ...], of: Limit) -> float:
    """The largest element of something non-negative that is known block by block."""
    return max((float(np.max(of(index), initial=0.0)) for index in blocks(shape)), default=0.0)


def mean_square(shape: tuple[int, ...], of: Limit) -> float:
    """The mean of the squares of its finite elements; 0 where none is finite."""
    total, count = 0.0, 0
    for index in blocks(shape):
        block = of(index).astype(np.float64)
        block = block[np.isfinite(block)]
        total += float(np.dot(block, block))
        count += block.size
    return total / count if count else 0.0
