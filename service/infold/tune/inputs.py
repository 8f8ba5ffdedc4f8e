"""What a model is run on: distinct rows, and runs of many rows made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from infold.bench.requests import request_tensors
from infold.errors import InvalidInputError, SamplesError
from infold.serving.joining import common_rows
from infold.tensors import Signature, Tensors

__all__ = ["Pool", "pool"]


class Pool:
    """Distinct rows of every input, or one whole request of a model that cannot join any.

    Args:
        rows: One row each.
        is_joinable: They may share a run.
        open_inputs: Inputs of which open lengths were taken as 1.
    """

    def __init__(self, rows: Sequence[Tensors], is_joinable: bool, open_inputs: Sequence[str] = ()) -> None:
        self.rows = rows
        self.is_joinable = is_joinable
        self.open_inputs = open_inputs

    def fits(self, signature: Signature) -> bool:
        """Another model takes the same rows."""
        try:
            for row in self.rows:
                signature.check(row)
        except InvalidInputError:
            return False
        return signature.is_batched == self.is_joinable

    def batch(self, rows: int) -> Tensors:
        """So many rows in one run, from the first on, and again from the first."""
        return stacked(self.rows, rows)


def stacked(each: Sequence[Tensors], rows: int) -> Tensors:
    """Rows one below the other, repeated in their order until there are so many."""
    if rows == 1:
        return each[0]
    chosen = [each[n % len(each)] for n in range(rows)]
    return {name: np.concatenate([row[name] for row in chosen]) for name in each[0]}


def pool(
    model: Path, signature: Signature, samples: Path | None, shapes: Mapping[str, tuple[int, ...]]
) -> Pool:
    """The user's samples, else drawn in the user's shapes, else golden, else drawn with open lengths of 1.

    Args:
        model: The file; golden samples lie beside it.
        signature: Of the model.
        samples: An `.npz` file, as `request_tensors` takes it.
        shapes: See there.

    Raises:
        SamplesError: They do not fit, or cannot be drawn.
        InvalidInputError: Inputs have different numbers of rows.
    """
    ones: dict[str, tuple[int, ...]] = {}
    requests = None if samples or shapes else _golden(model.with_name("golden.npz"), signature)
    if requests is None:
        ones = {} if samples else _ones(signature, shapes)
        requests = request_tensors(signature, samples, {**ones, **shapes}, None)
    if not signature.is_batched:
        return Pool(requests[:1], False, tuple(ones))
    return Pool([row for request in requests for row in _rows(request)], True, tuple(ones))


def _golden(path: Path, signature: Signature) -> list[Tensors] | None:
    try:
        return request_tensors(signature, path, {}, None) if path.is_file() else None
    except SamplesError:
        return None


def _ones(signature: Signature, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of inputs that leave more open than rows; a symbol has the length that a given shape says."""
    given = {(name or signature.inputs[0].name): shape for name, shape in shapes.items()}
    lengths = {
        dim: length
        for spec in signature.inputs
        for dim, length in zip(spec.shape or (), given.get(spec.name, ()), strict=False)
        if isinstance(dim, str)
    }
    return {
        spec.name: tuple(dim if isinstance(dim, int) else lengths.get(dim or "", 1) for dim in spec.shape)
        for spec in signature.inputs
        if spec.name not in given and spec.shape and not all(isinstance(dim, int) for dim in spec.shape[1:])
    }


def _rows(request: Tensors) -> list[Tensors]:
    return [{name: array[n : n + 1] for name, array in request.items()} for n in range(common_rows(request))]
