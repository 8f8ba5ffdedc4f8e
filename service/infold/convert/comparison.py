"""Two arrays of one name, compared: the figures a report shows, and whether they pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from infold.convert.blocks import Limit, blocks
from infold.errors import NothingToProveError, ProofError
from infold.fold.affine import F64
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
        ProofError: They differ in shape.
        NothingToProveError: Nothing in `want` is finite.
    """
    if want.dtype.kind not in "fiub" and want.dtype != ir.DataType.BFLOAT16.numpy():
        same = want.shape == got.shape and bool((want == got).all())
        return Comparison(name, 0.0, 0.0, 0.0, 0.0 if same else math.inf)
    finite = np.abs(want.astype(np.float64))
    scale = float(finite[np.isfinite(finite)].max(initial=0.0))
    floor = UNIT_ROUNDOFF[ir.DataType.FLOAT16] if want.dtype.itemsize == 2 else 2.0**-22
    return compare(name, want, got, np.asarray(max(spread, floor) * scale))


def compare(name: str, want: Array, got: Array, allowed: Array | Limit) -> Comparison:
    """Compare two arrays element by element, a block at a time.

    Args:
        name: What to call them.
        want: Unfolded.
        got: Folded.
        allowed: Largest difference allowed, at each element or block by block.

    Raises:
        ProofError: They differ in shape.
        NothingToProveError: Nothing in `want` is finite.
    """
    if want.shape != got.shape:
        raise ProofError(f"'{name}' has shape {list(got.shape)} folded and {list(want.shape)} unfolded", name)
    tally = _Tally()
    limit = allowed if callable(allowed) else np.broadcast_to(allowed, want.shape).__getitem__
    for index in blocks(want.shape):
        tally.add(want[index].astype(np.float64), got[index].astype(np.float64), limit(index))
    if want.size and not tally.any_finite:
        raise NothingToProveError(f"'{name}' is nowhere finite on the samples: nothing can be compared", name)
    return tally.comparison(name, _argmax_agreement(want, got))


class _Tally:
    """What a comparison has found so far."""

    def __init__(self) -> None:
        self.any_finite = False
        self._same_kind = True
        self._max_abs = self._exceeded = self._bound = self._scale = 0.0
        self._dot = self._want = self._got = 0.0

    def add(self, a: F64, b: F64, allowed: Array) -> None:
        """Take in one block."""
        finite = np.isfinite(a)
        if not finite.all():
            self._same_kind &= np.array_equal(a[~finite], b[~finite], equal_nan=True)
            a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
        self._same_kind &= bool(np.isfinite(b).all())
        self.any_finite |= bool(finite.any())
        self._bound = max(self._bound, float(np.max(allowed, initial=0.0)))
        if not self._same_kind:
            return
        difference = np.abs(b - a)
        self._max_abs = max(self._max_abs, float(difference.max(initial=0.0)))
        difference /= np.maximum(allowed, TINY)
        self._exceeded = max(self._exceeded, float(difference.max(initial=0.0)))
        self._scale = max(self._scale, float(np.abs(a).max(initial=0.0)))
        x, y = a.reshape(-1), b.reshape(-1)
        self._dot += float(np.dot(x, y))
        self._want += float(np.dot(x, x))
        self._got += float(np.dot(y, y))

    def comparison(self, name: str, argmax_agreement: float | None) -> Comparison:
        """The figures."""
        if not self._same_kind:
            return Comparison(name, math.inf, math.inf, self._bound, math.inf, None, argmax_agreement)
        norms = math.sqrt(self._want) * math.sqrt(self._got)
        return Comparison(
            name,
            self._max_abs,
            self._max_abs / self._scale if self._scale > 0 else self._max_abs,
            self._bound,
            self._exceeded,
            self._dot / norms if 0 < norms < math.inf else None,
            argmax_agreement,
        )


def _argmax_agreement(want: Array, got: Array) -> float | None:
    if want.ndim != 2 or want.shape[1] < 2 or want.shape[0] == 0 or want.dtype.kind != "f":
        return None
    return float((want.argmax(axis=1) == got.argmax(axis=1)).mean())
