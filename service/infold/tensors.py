"""Named tensors and what a model says of them: the words both halves of infold share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from infold.errors import InvalidInputError

__all__ = ["BFLOAT16", "MODEL_NAME", "Array", "Dim", "Signature", "TensorSpec", "Tensors", "kind_of"]

Array = NDArray[np.generic]
Tensors = Mapping[str, Array]

# numpy has no such type by itself; a byte pair, the upper half of a float32.
BFLOAT16: np.dtype[np.generic] = np.dtype(ml_dtypes.bfloat16)

# Names a model may have: one plain path segment, never hidden.
MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

# A fixed length, a symbol that stands for one length wherever it appears, or None: any length.
Dim = int | str | None


def kind_of(dtype: np.dtype[np.generic]) -> str:
    """The letter that numpy has for a kind of type: b, i, u, f, or O for strings; bfloat16 is an f."""
    return "f" if dtype == BFLOAT16 else dtype.kind


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named input or output of a model.

    Attributes:
        name: The model's own name of it.
        dtype: numpy dtype of the elements; object for strings.
        shape: One `Dim` an axis, the batch axis included; None where even the rank is open.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[Dim, ...] | None

    @property
    def has_batch_axis(self) -> bool:
        """The first axis exists and is not of fixed length."""
        return bool(self.shape) and not isinstance(self.shape[0], int)  # type: ignore[index]  # not None

    @property
    def rank(self) -> int | None:
        """Number of axes; None where that is open."""
        return None if self.shape is None else len(self.shape)

    def wire_shape(self) -> list[int]:
        """The shape as the protocols write it: -1 for an open dimension."""
        return [dim if isinstance(dim, int) else -1 for dim in self.shape or ()]

    def mismatch(self, array: Array) -> str | None:
        """Say how an array fails to fit this spec, or None where it fits."""
        if array.dtype != self.dtype:
            return f"type {array.dtype} given, the model takes {self.dtype}"
        if self.shape is None:
            return None
        if array.ndim == len(self.shape):
            for want, got in zip(self.shape, array.shape, strict=True):
                if want != got and isinstance(want, int):
                    break
            else:
                return None
        return f"shape {list(array.shape)} given, the model takes {self.wire_shape()}"


@dataclass(frozen=True, slots=True)
class Signature:
    """All inputs and outputs of a model, in the model's order.

    Attributes:
        inputs: What a request brings.
        outputs: What it can ask for.
        has_rows: False says that a first axis is none of rows, although it is open.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    has_rows: bool = True

    def input(self, name: str) -> TensorSpec | None:
        """The input of that name, or None."""
        return next((spec for spec in self.inputs if spec.name == name), None)

    def output(self, name: str) -> TensorSpec | None:
        """The output of that name, or None."""
        return next((spec for spec in self.outputs if spec.name == name), None)

    @property
    def is_batched(self) -> bool:
        """Every input and output has an open first axis, of rows: those of several requests may be joined."""
        return self.has_rows and all(spec.has_batch_axis for spec in (*self.inputs, *self.outputs))

    def check(self, tensors: Tensors) -> None:
        """Pass if the tensors are exactly the model's inputs, in dtype and shape.

        A symbol must stand for one length in all inputs of the call.

        Raises:
            InvalidInputError: An input is missing, unknown, or of the wrong dtype or shape.
        """
        for name in tensors:
            if self.input(name) is None:
                known = ", ".join(f"'{spec.name}'" for spec in self.inputs)
                raise InvalidInputError(f"input '{name}'", f"the model has no such input; it has {known}")
        lengths: dict[str, tuple[int, str]] = {}
        for spec in self.inputs:
            if spec.name not in tensors:
                raise InvalidInputError(f"input '{spec.name}'", "missing")
            array = tensors[spec.name]
            if problem := spec.mismatch(array):
                raise InvalidInputError(f"input '{spec.name}'", problem)
            for axis, dim in enumerate(spec.shape or ()):
                if not isinstance(dim, str):
                    continue
                length, where = lengths.setdefault(dim, (array.shape[axis], spec.name))
                if length != array.shape[axis]:
                    raise InvalidInputError(
                        f"input '{spec.name}'",
                        f"axis {axis} ('{dim}') has length {array.shape[axis]}, but '{where}' has {length}",
                    )
