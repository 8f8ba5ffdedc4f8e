"""Weights behind DequantizeLinear: a norm goes into their scales, and the integers stay.

    W[o, ...] = scale[o] * (q[o, ...] - zero_point[o])

An affine behind the op multiplies each output's scale; its sign goes into the integers.
What differs by input channel has no place in such a weight.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infold.fold.affine import F64
from infold.fold.attributes import int_of
from infold.fold.constants import constant, is_constant, stored, stored_dtype
from infold.fold.linear import FoldedBias, Linear, Weight
from infold.fold.patch import NewConstant, NewNode
from infold.fold.report import Reason, Refused
from infold.tensors import Array

__all__ = ["dequantizer", "read_quantized", "write_quantized"]


def dequantizer(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that makes this weight out of constants, or None."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.domain:
        return None
    return node if all(is_constant(each) for each in node.inputs if each is not None) else None


def read_quantized(node: ir.Node, axes: tuple[int, int], groups: int, at: str | None) -> tuple[Weight, F64]:
    """The integers as a weight, and the scale of each output.

    Args:
        node: The DequantizeLinear.
        axes: Output and input axis of the weight.
        groups: Number of groups.
        at: Who asks, for a refusal.

    Raises:
        Refused: `quantized`, when the scales do not lie along the outputs.
    """
    integers = constant(node.inputs[0], at).astype(np.float32)
    scale_value = node.inputs[1]
    dtype = None if scale_value is None else stored_dtype(scale_value)
    if scale_value is None or dtype is None or int_of(node, "block_size", 0):
        raise Refused(Reason.QUANTIZED, at, "scales by blocks")
    exact = stored(scale_value)
    scale = exact.exact if isinstance(exact, FoldedBias) else constant(scale_value, at).astype(np.float64)
    out_axis = axes[0] % integers.ndim
    axis = int_of(node, "axis", 1) % integers.ndim
    shape = [1] * integers.ndim
    if scale.size > 1:
        if axis != out_axis or (groups > 1 and out_axis > axes[1] % integers.ndim):
            raise Refused(Reason.QUANTIZED, at, "its scales do not lie along the outputs")
        shape[axis] = -1
    zero_value = node.inputs[2] if len(node.inputs) > 2 else None
    if zero_value is not None:
        zero = constant(zero_value, at).astype(np.float32)
        integers = integers - (zero.reshape(shape) if zero.size > 1 else zero.reshape(()))
    weight = Weight(integers, dtype, out_axis, axes[1] % integers.ndim, groups)
    if groups > 1 and integers.shape[out_axis] != weight.outputs:
        raise Refused(Reason.QUANTIZED, at, "its groups share their scales")
    return weight, np.broadcast_to(scale.reshape(-1), weight.outputs).copy()


def write_quantized(node: ir.Node, changed: Linear, at: str | None, opset: int) -> NewNode:
    """The integers under new scales, one for each output.

    Raises:
        Refused: `quantized`, when a scale would differ by input, or there is no place for
            one by output.
    """
    if (changed.in_scale != 1).any():
        raise Refused(Reason.QUANTIZED, at, "a scale for each input has no place in its weights")
    if opset < 13:
        raise Refused(Reason.QUANTIZED, at, f"opset {opset} has one scale for all outputs")
    integer_value, scale_value = node.inputs[0], node.inputs[1]
    zero_value = node.inputs[2] if len(node.inputs) > 2 else None
    integers, zero, scale = _positive(node, changed, at)
    inputs: list[ir.Value | NewConstant | None] = [integer_value]
    if integers is not None:
        inputs[0] = NewConstant(ir.Tensor(integers), (integer_value.name if integer_value else None) or "q")
    new_scale = FoldedBias(scale, changed.weight.dtype)
    inputs.append(NewConstant(new_scale, (scale_value.name if scale_value else None) or "scale"))
    if zero_value is not None or zero.any():
        name = (zero_value.name if zero_value else None) or f"{at}.zero_point"
        inputs.append(NewConstant(ir.Tensor(zero), name))
    attributes = [attr for name, attr in node.attributes.items() if name != "axis"]
    attributes.append(ir.AttrInt64("axis", changed.weight.out_axis))
    return NewNode(
        "DequantizeLinear",
        tuple(inputs),
        node.name,
        tuple(attributes),
        output_like=node.outputs[0],
        metadata=dict(node.metadata_props),
    )


def _positive(node: ir.Node, changed: Linear, at: str | None) -> tuple[Array | None, Array, F64]:
    """Integers (None where they stay), zero points and scales with every scale positive.

    A negative scale turns a channel's integers over: the complement of q and of the zero
    point differ by just the opposite, without overflow. A dead channel keeps its old
    scale and gets nothing but zeros.
    """
    stored = constant(node.inputs[0], at)
    axis, outputs = changed.weight.out_axis, changed.weight.outputs
    given = node.inputs[2] if len(node.inputs) > 2 else None
    start = constant(given, at).reshape(-1) if given is not None else np.zeros(1, stored.dtype)
    zero = np.broadcast_to(start, outputs).copy()
    scale = changed.out_scale.copy()
    negative, dead = np.flatnonzero(scale < 0), np.flatnonzero(scale == 0)
    if not negative.size and not dead.size:
        return None, zero, scale
    if stored.dtype not in (np.int8, np.uint8):
        raise Refused(Reason.QUANTIZED, at, f"{stored.dtype} weights under a scale that is not positive")
    integers = np.moveaxis(stored.copy(), axis, 0)
    for channel in negative:
        mirrored = stored.dtype == np.int8 and zero[channel] == 0 and integers[channel].min() > -128
        integers[channel] = -integers[channel] if mirrored else ~integers[channel]
        zero[channel] = 0 if mirrored else ~zero[channel]
    for channel in dead:
        integers[channel] = zero[channel]
    scale[dead] = 1.0
    return np.ascontiguousarray(np.moveaxis(integers, 0, axis)), zero, np.abs(scale)
