"""A linear op evaluated in float64: the truth that both sides of a proof are held against.

Differing from the unfolded model is no error by itself: with a moving mean of
1e4 it is the unfolded one that loses digits. So both are compared with what the
exact arithmetic gives on the very data that each of them saw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view

from infold.fold import LinearOp
from infold.fold.affine import F64
from infold.fold.linear import FoldedTensor
from infold.tensors import Array

__all__ = ["conv_transpose", "error", "evaluate", "row_limit", "site_budget"]

# Multiply-adds spent on one site, and on all of them together; fewer rows are looked at where more
# would be needed.
SITE_BUDGET, BUDGET = 2_000_000_000, 8_000_000_000
# Products of one float64 block: what a convolution lays out in memory before it sums up.
BLOCK_PRODUCTS = 2**22


def site_budget(sites: int) -> int:
    """Multiply-adds for one of so many sites."""
    return min(SITE_BUDGET, BUDGET // max(1, sites))


def row_limit(op: LinearOp, output: Array, budget: int) -> int | None:
    """How many rows of the data to evaluate; None where the rows cannot be told apart."""
    if op.in_axis == 0 or op.out_axis == 0:
        return None
    per_row = int(output.size) // max(1, int(output.shape[0])) * op.linear.weight.fan_in
    return max(1, budget // max(1, per_row))


def error(op: LinearOp, data: Array, value: Array, budget: int) -> float | None:
    """The distance of a value from what float64 makes of the data it was computed from.

    Args:
        op: The linear op, bias included.
        data: What it read.
        value: What came out.
        budget: Multiply-adds to spend; at least one row is looked at.

    Returns:
        The largest distance over the largest exact magnitude, or None for a form that is not
        evaluated here.
    """
    if value.size == 0:
        return None
    limit = row_limit(op, value, budget)
    rows = value.shape[0] if limit is None else min(limit, value.shape[0])
    laid_out = value.size // value.shape[0] * op.linear.weight.fan_in // op.linear.weight.outputs
    step = rows if limit is None else max(1, BLOCK_PRODUCTS // max(1, laid_out))
    largest = scale = 0.0
    for start in range(0, rows, step):
        block = slice(start, min(start + step, rows)) if limit is not None else slice(None)
        exact = evaluate(op, data[block])
        if exact is None or exact.shape != value[block].shape:
            return None
        scale = max(scale, float(np.abs(exact).max(initial=0.0)))
        largest = max(largest, float(np.abs(exact - value[block].astype(np.float64)).max(initial=0.0)))
    return largest / (scale or 1.0)


def evaluate(op: LinearOp, data: Array) -> F64 | None:
    """The op's output in float64, from unrounded weights where they are at hand.

    Args:
        op: The linear op, bias included.
        data: What it reads.

    Returns:
        The output, or None for a form whose border rules are not evaluated here.
    """
    linear = op.linear
    weight = FoldedTensor(linear.weight, linear.out_scale, linear.in_scale).exact()
    function = EVALUATORS[op.nodes[0].op_type]
    result = function(op, data.astype(np.float64), weight)
    if result is None:
        return None
    if linear.bias.ndim > 1:
        return result + linear.bias
    return result + linear.bias.reshape([-1 if axis == op.out_axis else 1 for axis in range(result.ndim)])


def _ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    return list(node.attributes[name].as_ints()) if name in node.attributes else list(default)


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _pads(node: ir.Node, lengths: Sequence[int], spans: Sequence[int], steps: Sequence[int]) -> list[int]:
    """Begin pads, then end pads, auto_pad worked out."""
    mode = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
    if mode in ("NOTSET", "VALID"):
        return _ints(node, "pads", [0] * (2 * len(spans)))
    begins, ends = [], []
    for length, span, step in zip(lengths, spans, steps, strict=True):
        total = max(0, (math.ceil(length / step) - 1) * step + span - length)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return begins + ends


def _conv(op: LinearOp, data: F64, weight: F64) -> F64 | None:
    node, taps = op.nodes[0], weight.shape[2:]
    rank = len(taps)
    steps, gaps = _ints(node, "strides", [1] * rank), _ints(node, "dilations", [1] * rank)
    spans = [(tap - 1) * gap + 1 for tap, gap in zip(taps, gaps, strict=True)]
    pads = _pads(node, data.shape[2:], spans, steps)
    padded = np.pad(data, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    windows = sliding_window_view(padded, spans, axis=tuple(range(2, 2 + rank)))
    picks = [slice(None)] * 2 + [slice(None, None, s) for s in steps] + [slice(None, None, g) for g in gaps]
    windows = windows[tuple(picks)]  # [N, C, *out, *taps]
    groups = op.linear.weight.groups
    inner = (1, *range(2 + rank, 2 + 2 * rank))
    parts = [
        np.moveaxis(np.tensordot(x, w, (inner, (1, *range(2, 2 + rank)))), -1, 1)
        for x, w in zip(np.split(windows, groups, axis=1), np.split(weight, groups), strict=True)
    ]
    return np.concatenate(parts, axis=1)


def _conv_transpose(op: LinearOp, data: F64, weight: F64) -> F64 | None:
    node, rank = op.nodes[0], weight.ndim - 2
    if "output_shape" in node.attributes or "auto_pad" in node.attributes:
        return None
    return conv_transpose(
        data,
        weight,
        op.linear.weight.groups,
        _ints(node, "strides", [1] * rank),
        _ints(node, "dilations", [1] * rank),
        _ints(node, "pads", [0] * (2 * rank)),
        _ints(node, "output_padding", [0] * rank),
    )


def conv_transpose(
    data: F64,
    weight: F64,
    groups: int,
    steps: Sequence[int],
    gaps: Sequence[int],
    pads: Sequence[int],
    extra: Sequence[int],
) -> F64:
    """A transposed convolution without bias, from its definition: every input adds its taps.

    Args:
        data: [N, C, ...].
        weight: [C, O/groups, ...].
        groups: Number of groups.
        steps: Strides, one an axis of space.
        gaps: Dilations.
        pads: What is cut off: at the begin of each axis, then at the end of each.
        extra: Output padding.
    """
    taps = weight.shape[2:]
    rank = len(taps)
    full = [
        (length - 1) * step + (tap - 1) * gap + 1 + more
        for length, step, tap, gap, more in zip(data.shape[2:], steps, taps, gaps, extra, strict=True)
    ]
    parts = []
    for x, w in zip(np.split(data, groups, axis=1), np.split(weight, groups), strict=True):
        out = np.zeros((data.shape[0], w.shape[1], *full))
        for tap in np.ndindex(*taps):
            places = [
                slice(t * g, t * g + (n - 1) * s + 1, s)
                for t, g, n, s in zip(tap, gaps, data.shape[2:], steps, strict=True)
            ]
            share = np.tensordot(x, w[(slice(None), slice(None), *tap)], (1, 0))
            out[(slice(None), slice(None), *places)] += np.moveaxis(share, -1, 1)
        crop = [slice(pads[i], full[i] - pads[rank + i]) for i in range(rank)]
        parts.append(out[(slice(None), slice(None), *crop)])
    return np.concatenate(parts, axis=1)


def _gemm(op: LinearOp, data: F64, weight: F64) -> F64 | None:
    node = op.nodes[0]
    left, right = (data, weight) if node.inputs[0] is op.input else (weight, data)
    left = left.T if _int(node, "transA", 0) else left
    return left @ (right.T if _int(node, "transB", 0) else right)


def _matmul(op: LinearOp, data: F64, weight: F64) -> F64 | None:
    return data @ weight if op.nodes[0].inputs[0] is op.input else weight @ data


EVALUATORS: Mapping[str, Callable[[LinearOp, F64, F64], F64 | None]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
