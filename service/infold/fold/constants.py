"""What a value is worth when nothing but constants goes into it.

Norm parameters often reach a graph behind Identity, Cast, Reshape or a little
arithmetic (`sqrt(var + eps)`). They are evaluated here, by a small table of
operators, in float64: a constant is computed once, so it may as well be exact.
An operator outside the table makes the value not constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from infold.fold.attributes import int_of, ints_of
from infold.fold.report import Reason, Refused
from infold.fold.rounding import rounded
from infold.tensors import Array

__all__ = ["constant", "is_constant", "is_float", "stored", "stored_dtype", "vector"]

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)

Evaluator = Callable[[ir.Node, Sequence[Array]], Array]


def is_float(array: Array) -> bool:
    """The elements are floating point numbers, bfloat16 included."""
    return array.dtype.kind == "f" or array.dtype == ir.DataType.BFLOAT16.numpy()


def _wide(array: Array) -> Array:
    """Floats as float64, everything else as it is."""
    return array.astype(np.float64) if is_float(array) else array


def _ints(array: Array) -> list[int]:
    return [int(number) for number in array.reshape(-1)]


def _axes(node: ir.Node, inputs: Sequence[Array]) -> list[int] | None:
    """The axes of Squeeze and Unsqueeze: an input since opset 13, an attribute before."""
    if len(inputs) > 1:
        return _ints(inputs[1])
    return list(ints_of(node, "axes", ())) if "axes" in node.attributes else None


def _cast(node: ir.Node, inputs: Sequence[Array]) -> Array:
    return rounded(inputs[0], ir.DataType(int_of(node, "to", 0)))


def _reshape(node: ir.Node, inputs: Sequence[Array]) -> Array:
    data, shape = inputs[0], _ints(inputs[1])
    if not int_of(node, "allowzero", 0):
        shape = [data.shape[i] if length == 0 else length for i, length in enumerate(shape)]
    return data.reshape(shape)


def _unsqueeze(node: ir.Node, inputs: Sequence[Array]) -> Array:
    axes = _axes(node, inputs) or []
    rank = inputs[0].ndim + len(axes)
    return np.expand_dims(inputs[0], tuple(axis % rank for axis in axes))


def _squeeze(node: ir.Node, inputs: Sequence[Array]) -> Array:
    axes = _axes(node, inputs)
    return np.squeeze(inputs[0], None if axes is None else tuple(axes))


def _transpose(node: ir.Node, inputs: Sequence[Array]) -> Array:
    return np.transpose(inputs[0], ints_of(node, "perm", range(inputs[0].ndim - 1, -1, -1)))


def _flatten(node: ir.Node, inputs: Sequence[Array]) -> Array:
    axis = int_of(node, "axis", 1)
    axis = axis % inputs[0].ndim if axis < 0 else axis
    return inputs[0].reshape(int(np.prod(inputs[0].shape[:axis], dtype=np.int64)), -1)


def _expand(_: ir.Node, inputs: Sequence[Array]) -> Array:
    shape = np.broadcast_shapes(inputs[0].shape, tuple(_ints(inputs[1])))
    return np.broadcast_to(inputs[0], shape)


def _concat(node: ir.Node, inputs: Sequence[Array]) -> Array:
    return np.concatenate(inputs, axis=int_of(node, "axis", 1))


def _constant_of_shape(node: ir.Node, inputs: Sequence[Array]) -> Array:
    given = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if given is None else given.as_tensor().numpy()
    return np.full(_ints(inputs[0]), fill.reshape(-1)[0], fill.dtype)


def _gather(node: ir.Node, inputs: Sequence[Array]) -> Array:
    return np.take(inputs[0], inputs[1].astype(np.int64), axis=int_of(node, "axis", 0))


def _divide(left: Array, right: Array) -> Array:
    quotient = np.true_divide(left, right)
    # ONNX divides integers towards zero, numpy's // towards minus infinity.
    return quotient if is_float(left) else np.trunc(quotient).astype(left.dtype)


def _dequantize(node: ir.Node, inputs: Sequence[Array]) -> Array:
    if int_of(node, "block_size", 0):
        raise Refused(Reason.NOT_CONSTANT, node.name, "DequantizeLinear by blocks")
    shape = [1] * inputs[0].ndim
    if inputs[1].size > 1:
        shape[int_of(node, "axis", 1)] = -1
    integers = inputs[0].astype(np.float64)
    if len(inputs) > 2:
        integers = integers - inputs[2].astype(np.float64).reshape(shape if inputs[2].size > 1 else ())
    return integers * inputs[1].astype(np.float64).reshape(shape if inputs[1].size > 1 else ())


def _arithmetic(function: Callable[..., Array]) -> Evaluator:
    return lambda _, inputs: np.asarray(function(*(_wide(array) for array in inputs)))


EVALUATORS: Mapping[str, Evaluator] = {
    "Identity": lambda _, inputs: inputs[0],
    "Cast": _cast,
    "DequantizeLinear": _dequantize,
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Flatten": _flatten,
    "Expand": _expand,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Gather": _gather,
    "Add": _arithmetic(np.add),
    "Sub": _arithmetic(np.subtract),
    "Mul": _arithmetic(np.multiply),
    "Div": _arithmetic(_divide),
    "Neg": _arithmetic(np.negative),
    "Sqrt": _arithmetic(np.sqrt),
    "Reciprocal": _arithmetic(lambda array: 1.0 / array),
    "Pow": _arithmetic(np.power),
    "Exp": _arithmetic(np.exp),
    "Abs": _arithmetic(np.abs),
}


def stored(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer or of a Constant node, or None.

    An initializer that is also a graph input can be overridden by the caller,
    so it is no constant.
    """
    if value.is_graph_input():
        return None
    if value.is_initializer():
        return value.const_value
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain or len(node.attributes) != 1:
        return None
    return ir.convenience.get_const_tensor(value)


def is_constant(value: ir.Value | None) -> bool:
    """Nothing but constants and operators of the table go into the value."""
    if value is None:
        return False
    if stored(value) is not None:
        return True
    node = value.producer()
    return (
        node is not None
        and not node.domain
        and node.op_type in EVALUATORS
        and all(is_constant(each) for each in node.inputs)
    )


def constant(value: ir.Value | None, at: str | None = None) -> Array:
    """The value's elements: stored ones in their own dtype, computed ones in float64.

    Args:
        value: The value; None stands for an input that is left out.
        at: Who asks, for the refusal.

    Raises:
        Refused: `not-constant`, when anything but constants goes into it or an
            operator is outside the table.
    """
    if value is None:
        raise Refused(Reason.NOT_CONSTANT, at, "a parameter is missing")
    tensor = stored(value)
    if tensor is not None:
        return tensor.numpy()
    node = value.producer()
    if node is None or node.domain or node.op_type not in EVALUATORS:
        what = f"computed by {node.op_type}" if node is not None else "given at run time"
        raise Refused(Reason.NOT_CONSTANT, at, f"'{value.name}' is {what}")
    inputs = [constant(each, at) for each in node.inputs]
    try:
        with np.errstate(all="ignore"):
            return EVALUATORS[node.op_type](node, inputs)
    except (ValueError, IndexError, TypeError, MemoryError) as broken:  # no runtime could compute it either
        raise Refused(Reason.NOT_CONSTANT, at, f"'{value.name}' cannot be computed: {broken}") from broken


def vector(value: ir.Value | None, at: str | None) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A parameter of one element per channel, as float64 [C].

    Raises:
        Refused: `not-constant`; `invalid-statistics` when it has more than one axis.
    """
    array = constant(value, at)
    if array.ndim != 1:
        shape = list(array.shape)
        raise Refused(Reason.INVALID_STATISTICS, at, f"a parameter has shape {shape}, not [C]")
    return array.astype(np.float64)


def stored_dtype(value: ir.Value) -> ir.DataType | None:
    """The dtype in which a constant reaches its reader: its own, or that of what it is computed of."""
    tensor = stored(value)
    if tensor is not None:
        return tensor.dtype
    if value.dtype is not None:
        return value.dtype
    node = value.producer()
    if node is None:
        return None
    if node.op_type == "Cast":
        return ir.DataType(int_of(node, "to", 0))
    return next((stored_dtype(each) for each in node.inputs[:1] if each is not None), None)
