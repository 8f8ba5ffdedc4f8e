"""Which runs are picked to be repeated, and which of their rows; pure.

Knows no clock and no threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infold.tensors import Array, Tensors

__all__ = ["MOST_BYTES", "MOST_ROWS", "Ran", "Share", "copied"]

MOST_ROWS = 8
MOST_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Ran:
    """A run that is over.

    Attributes:
        tensors: What went in.
        outputs: What was asked for; None for all.
        results: What came out.
    """

    tensors: Tensors
    outputs: Sequence[str] | None
    results: Tensors


class Share:
    """A share of all runs, spread evenly over them.

    Of the first `n` exactly `ceil(share * n)` are picked, the very first among them; of any `n` in a row
    that many or one less.

    Args:
        share: Above 0, at most 1.
    """

    __slots__ = ("_above", "_below")

    def __init__(self, share: float) -> None:
        self._above, self._below = float(share).as_integer_ratio()  # exact, however many runs there are

    def picks(self, number: int) -> bool:
        """The run of this number, counted from 0, is one of them."""
        left = number * self._above % self._below
        return left == 0 or left > self._below - self._above


def copied(ran: Ran, most_rows: int) -> Ran | None:
    """A copy of a run's first rows, which holds no memory of the requests.

    Args:
        ran: The run.
        most_rows: That are copied; 0 takes the run as a whole, whose rows are not to be told apart.

    Returns:
        None where what is to be copied is larger than what is kept for that.
    """
    arrays = [*ran.tensors.values(), *ran.results.values()]
    size = sum(array.nbytes for array in arrays)
    rows = {array.shape[:1] for array in arrays}
    end = None
    if most_rows and len(rows) == 1 and (count := next(iter(rows))) and count[0] > 1:
        end = min(most_rows, count[0], max(1, MOST_BYTES * count[0] // max(1, size)))
        size = size * end // count[0]
    if size > MOST_BYTES:
        return None
    return Ran(_copied(ran.tensors, end), ran.outputs, _copied(ran.results, end))


def _copied(tensors: Tensors, end: int | None) -> dict[str, Array]:
    return {name: np.array(array if end is None else array[:end]) for name, array in tensors.items()}
