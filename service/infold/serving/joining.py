"""Rows of several requests in one run, and each its own rows of what comes out; pure arrays.

One copy is made on the way in, into the tensor that is run; outputs are views.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from infold.errors import InvalidInputError, SessionError
from infold.tensors import Array, Tensors

__all__ = ["common_rows", "joined", "padded_rows", "parts", "split"]


def common_rows(tensors: Tensors) -> int:
    """Rows of a request; every input has as many.

    Raises:
        InvalidInputError: They differ.
    """
    lengths = {name: int(array.shape[0]) for name, array in tensors.items()}
    first, rows = next(iter(lengths.items()))
    for name, length in lengths.items():
        if length != rows:
            raise InvalidInputError(f"input '{name}'", f"has {length} rows, but '{first}' has {rows}")
    return rows


def padded_rows(rows: int, pad_to: Sequence[int]) -> int:
    """The next of some numbers of rows; the same number where none is as large, and none for none."""
    return rows and min((each for each in pad_to if each >= rows), default=rows)


def joined(requests: Sequence[Tensors], rows: int) -> Tensors:
    """The rows of all requests one below the other, the last one repeated until there are so many.

    Args:
        requests: Of equal names, dtypes and trailing shapes; one row at least in all.
        rows: At least as many as they have.
    """
    first = requests[0]
    if len(requests) == 1 and len(next(iter(first.values()))) == rows:
        return first
    together = {}
    for name, array in first.items():
        target = np.empty((rows, *array.shape[1:]), array.dtype)
        start = 0
        for request in requests:
            part = request[name]
            target[start : start + len(part)] = part
            start += len(part)
        if 0 < start < rows:
            target[start:] = target[start - 1]
        together[name] = target
    return together


def split(model: str, results: dict[str, Array], counts: Sequence[int], rows: int) -> list[dict[str, Array]]:
    """Each request's own rows, as views.

    Args:
        model: To name in an error.
        results: Outputs by name.
        counts: Rows of each request.
        rows: That were run, with those that fill up.

    Raises:
        SessionError: An output has not one row for each row of input.
    """
    for name, array in results.items():
        if array.shape[:1] != (rows,):
            detail = f"output '{name}' has shape {list(array.shape)} for {rows} rows of input"
            raise SessionError(model, detail)
    answers, start = [], 0
    for count in counts:
        answers.append({name: array[start : start + count] for name, array in results.items()})
        start += count
    return answers


def parts(tensors: Tensors, rows: int, most: int) -> list[Tensors]:
    """A request cut into runs of at most so many rows."""
    return [
        {name: array[start : start + most] for name, array in tensors.items()}
        for start in range(0, max(rows, 1), most)
    ]
