"""Two arrays of one name, compared: the figures a report shows, and whether they pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from infold.errors import ProofError
from infold.tensors import Array

__all__ = ["UNIT_ROUNDOFF", "Comparison", "compare", "compare_output"]

UNIT_ROUNDOFF = {
    ir.DataType.DOUBLE: 2.0**-53,
    ir.DataType.FLOAT: 2.0**-24,
    ir.DataType.FLOAT16: 2.0**-11,
    ir.DataType.BFLOAT16: 2.0**-8,
}
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two arrays of one name, compared in float64.

    Attributes:
        max_abs: Largest absolute difference.
        relative: The same over the largest magnitude of the unfolded array.
        bound: Largest absolute difference that rounding explains.
        exceeded: How far the difference goes beyond what is allowed at its place;
            at most 1 passes.
        cosine: Cosine similarity; None where an array is all zero.
        argmax_agreement: Share of rows with the same largest class, where the array
            looks like class scores ([rows, at least 2] of floats).
    """

    name: str
    max_abs: float
    relative: float
    bound: float
    exceeded: float
    cosine: float | None = None
    argmax_agreement: float | None = None

    @property
    def passed(self) -> bool:
        """The difference is within what rounding explains."""
        return self.exceeded <= 1.0


def compare_output(name: str, want: Array, got: Array, spread: float) -> Comparison:
    """Compare an output of a model, whatever its type.

    Args:
        name: Its name.
        want: Unfolded.
        got: Folded.
        spread: Allowed difference over the largest magnitude; at least what one
            rounding of the type allows.

    Raises:
        ProofError: They differ in shape, or nothing in them is finite.
    """
    if want.dtype.kind not in "fiub" and want.dtype != ir.DataType.BFLOAT16.numpy():
        same = want.shape == got.shape and bool((want == got).all())
        return Comparison(name, 0.0, 0.0, 0.0, 0.0 if same else math.inf)
    finite = np.abs(want.astype(np.float64))
    scale = float(finite[np.isfinite(finite)].max(initial=0.0))
    floor = UNIT_ROUNDOFF[ir.DataType.FLOAT16] if want.dtype.itemsize == 2 else 2.0**-22
    return compare(name, want, got, np.asarray(max(spread, floor) * scale))


def compare(name: str, want: Array, got: Array, allowed: Array) -> Comparison:
    """Compare two arrays element by element.

    Raises:
        ProofError: They differ in shape, or nothing in them is finite.
    """
    if want.shape != got.shape:
        raise ProofError(f"'{name}' has shape {list(got.shape)} folded and {list(want.shape)} unfolded", name)
    a, b = want.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(a)
    if a.size and not finite.any():
        raise ProofError(f"'{name}' is nowhere finite on the samples: nothing can be compared", name)
    same_kind = np.array_equal(a[~finite], b[~finite], equal_nan=True) and np.isfinite(b[finite]).all()
    difference = np.abs(np.where(finite, b - np.where(finite, a, 0.0), 0.0))
    max_abs = float(difference.max(initial=0.0)) if same_kind else math.inf
    limits = np.maximum(np.broadcast_to(allowed, a.shape), TINY)
    exceeded = float((difference / limits).max(initial=0.0)) if same_kind else math.inf
    scale = float(np.abs(a[finite]).max(initial=0.0))
    norms = float(np.linalg.norm(a[finite]) * np.linalg.norm(b[finite]))
    cosine = float(np.dot(a[finite], b[finite]) / norms) if norms > 0 and same_kind else None
    return Comparison(
        name,
        max_abs,
        max_abs / scale if scale > 0 else max_abs,
        float(np.max(allowed, initial=0.0)),
        exceeded,
        cosine,
        _argmax_agreement(want, got),
    )


def _argmax_agreement(want: Array, got: Array) -> float | None:
    if want.ndim != 2 or want.shape[1] < 2 or want.shape[0] == 0 or want.dtype.kind != "f":
        return None
    return float((want.argmax(axis=1) == got.argmax(axis=1)).mean())
