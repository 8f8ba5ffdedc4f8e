"""What rounding explains at a folded norm, element by element.

Folding changes one thing only: the rounding of a weight and of the sums it takes part in. Summing
n products in a type of unit roundoff u is off by about sqrt(n) u times the sum of magnitudes
(Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section 2.8), so at the output y
of a linear op that absorbed a norm

    |y_folded - y_unfolded|  <=  C sqrt(n) u (sum |w||x| + |s|(|b| + |mean|) + |beta|)
                                 + sum |w| |x_folded - x_unfolded|

where n is the fan-in plus the norm's own four operations. Where two affines became one, the result
and what each of them adds stand in the place of the sum. The first line is what this fold may add,
the second what earlier ones brought along.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from infold.convert.blocks import Index, Limit, Scaled, mean_square, peak
from infold.convert.comparison import UNIT_ROUNDOFF
from infold.convert.magnitudes import bias_magnitude, key, magnitudes
from infold.convert.watching import Chain, Watched, norm_magnitude
from infold.fold.affine import F64
from infold.fold.constants import constant, is_constant
from infold.tensors import Array, Tensors

__all__ = ["Bound", "OpMagnitudes", "bound_of", "op_magnitudes"]

# Safety factor C: sums are not always random walks.
C = 4.0
NORM_OPERATIONS = 4


@dataclass(frozen=True, slots=True, eq=False)
class OpMagnitudes:
    """What errors at the output of one op are made of.

    Attributes:
        sums: `sum |w||x|`.
        bias: `|b|`, broadcasting against it.
        brought: `sum |w| |x_folded - x_unfolded|`.
    """

    sums: Scaled
    bias: F64
    brought: Scaled


@dataclass(frozen=True, slots=True, eq=False)
class _Term:
    """What one op allows at a norm."""

    unit: float
    norm: float
    parts: OpMagnitudes
    bias: F64

    def own(self, index: Index) -> F64:
        """What this fold may add."""
        return self.unit * (self.parts.sums[index] + (self.bias[index] + self.norm))

    def all(self, index: Index) -> F64:
        """That, and what was brought along."""
        return self.own(index) + self.parts.brought[index]


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """What rounding explains at one folded norm.

    Attributes:
        fan_in: The largest of the ops that absorbed it.
        limit: The largest difference allowed, block by block.
        own_mean_square: Mean square of what this fold may add.
    """

    fan_in: int
    limit: Limit
    own_mean_square: float


def bound_of(watched: Watched, parts: Mapping[str, OpMagnitudes], left: Tensors, right: Tensors) -> Bound:
    """The bound at a norm.

    Args:
        watched: The norm.
        parts: What errors are made of, by the key of the op.
        left: Values of the unfolded model by name, inputs included.
        right: The same of the folded one.
    """
    if watched.chain is not None:
        return _bound_of_chain(watched, watched.chain, left, right)
    shape = left[watched.probe].shape
    affine = watched.decision.affine
    norm = 0.0 if affine is None else norm_magnitude(affine, watched.decision.parameters)
    direct: list[Limit] = []
    apart, square, fan_in = 0.0, 0.0, 0
    for op in watched.ops:
        weight = op.linear.weight
        unit = C * math.sqrt(weight.fan_in + NORM_OPERATIONS) * UNIT_ROUNDOFF[weight.dtype]
        found = parts[key(op)]
        term = _Term(unit, norm, found, np.broadcast_to(found.bias, found.sums.shape))
        square += mean_square(found.sums.shape, term.own)
        fan_in = max(fan_in, weight.fan_in)
        # What lies between op and site may move elements: then the largest stands for all.
        if op.nodes[-1].outputs[0].name == watched.probe and found.sums.shape == shape:
            direct.append(term.all)
        else:
            apart += peak(found.sums.shape, term.all)

    def limit(index: Index) -> Array:
        return sum((each(index) for each in direct), np.asarray(apart))

    return Bound(fan_in, limit, square)


def _bound_of_chain(watched: Watched, chain: Chain, left: Tensors, right: Tensors) -> Bound:
    """The bound where affines became one: no sums, but the additions of each may cancel.

    Whatever stands in between is at most the result and what was added behind it; where several
    values flow together, they may be larger than their sum.
    """
    want = left[watched.probe]
    (above,) = watched.anchors.values()
    pairs = [(left[name], right[name]) for name in above if name in left and name in right]
    inflow = max((peak(a.shape, _magnitude(a)) for a, _ in pairs), default=0.0) if len(pairs) > 1 else 0.0
    brought = max((float(np.max(np.abs(_difference(b, a)), initial=0.0)) for a, b in pairs), default=0.0)
    dtype = ir.DataType.from_numpy(want.dtype)
    unit = C * math.sqrt(NORM_OPERATIONS * (chain.length + 1)) * UNIT_ROUNDOFF[dtype]
    base = 2 * chain.constants + chain.gain * inflow

    magnitude = _magnitude(want)

    def own(index: Index) -> F64:
        return unit * (magnitude(index) + base)

    def limit(index: Index) -> F64:
        return own(index) + chain.gain * brought

    return Bound(0, limit, mean_square(want.shape, own))


def _magnitude(array: Array) -> Callable[[Index], F64]:
    """Its finite magnitudes in float64."""

    def of(index: Index) -> F64:
        return np.nan_to_num(np.abs(array[index].astype(np.float64)), nan=0.0, posinf=0.0)

    return of


def op_magnitudes(window: Sequence[Watched], left: Tensors, right: Tensors) -> dict[str, OpMagnitudes]:
    """What errors are made of at every op that absorbed one of these norms, by its key.

    Args:
        window: The norms.
        left: Values of the unfolded model by name, inputs included.
        right: The same of the folded one.
    """
    ops = {key(op): op for each in window for op in each.ops}
    anchors = {name: found for each in window for name, found in each.anchors.items()}
    data: dict[str, Array] = {}
    brought: dict[str, Array] = {}
    for op in ops.values():
        name = op.input.name or ""
        data[name] = constant(op.input) if is_constant(op.input) else right[name]
        if name in left or name not in right:
            brought[name] = _difference(data[name], left.get(name, data[name]))
            continue
        # A fold across a pool, say, has given the op's data a new meaning: what it was brought
        # is then no more than what came in where both models still agree on the meaning.
        shifts = [_difference(right[each], left[each]) for each in anchors[name] if each in left]
        largest = max((float(np.abs(each).max(initial=0.0)) for each in shifts), default=0.0)
        brought[name] = np.full(np.shape(data[name]), largest, np.float32)
    sums, passed_on = magnitudes(list(ops.values()), [data, brought])
    return {
        name: OpMagnitudes(sums[name], bias_magnitude(op, len(sums[name].shape)), passed_on[name])
        for name, op in ops.items()
    }


def _difference(a: Array, b: Array) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.nan_to_num(a.astype(np.float32) - b.astype(np.float32), copy=False)
