"""How each linear operator stores its weight: the table from operator to `Linear` and back.

Reading makes alpha, beta, transB, groups and a missing bias vanish; writing
puts an absorbed result back as the same operator, or as Gemm where a MatMul
now needs a bias. The algorithms above this table name no operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from infold.fold.affine import F64
from infold.fold.attributes import float_of, int_of, ints_of, string_of
from infold.fold.constants import FLOATS, constant, is_constant, stored, stored_dtype
from infold.fold.linear import Border, FoldedBias, FoldedTensor, Linear, Weight
from infold.fold.patch import PREVIOUS, NewConstant, NewNode, Operand
from infold.fold.quantized import dequantizer, read_quantized, write_quantized
from infold.fold.report import Reason, Refused
from infold.tensors import Array

__all__ = ["LinearOp", "bias_of_matmul", "linear_op"]

Write = Callable[[Linear], tuple[NewNode, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class LinearOp:
    """A linear operator with a constant weight, as it stands in a graph.

    Attributes:
        nodes: The node, or a MatMul and the Add of its bias.
        input: The data that goes in.
        linear: Its numbers.
        out_axis: Channel axis of the output, counted from the front.
        in_axis: Channel axis of the input.
        write: Makes the nodes of a changed `Linear`; may refuse `not-representable`.
        weight_value: The stored weight, whose other readers keep it.
    """

    nodes: tuple[ir.Node, ...]
    input: ir.Value
    linear: Linear
    out_axis: int
    in_axis: int
    write: Write
    weight_value: ir.Value

    @property
    def is_unrounded(self) -> bool:
        """The weight is still held as it was stored, with its scales beside it in float64."""
        return isinstance(self.weight_value.const_value, FoldedTensor)

    @property
    def name(self) -> str:
        """The name a report uses."""
        return self.nodes[0].name or self.nodes[0].outputs[0].name or self.nodes[0].op_type


def linear_op(node: ir.Node, opset: int) -> LinearOp | None:
    """The linear op whose output this node computes, or None if it is no linear op.

    Raises:
        Refused: It is one, but its weight is not constant, or its form is not understood.
    """
    if node.domain:
        return None
    if node.op_type == "Add":
        matmul = bias_of_matmul(node)
        return None if matmul is None else _read_matmul(matmul, opset, add=node)
    reader = READERS.get(node.op_type)
    return None if reader is None else reader(node, opset)


def _weight(value: ir.Value | None, node: ir.Node) -> tuple[Array, ir.DataType, F64 | None, F64 | None]:
    """The stored elements, their dtype, and scales already folded into them."""
    folded = None if value is None else stored(value)
    if isinstance(folded, FoldedTensor):
        return folded.weight.stored, folded.dtype, folded.out_scale, folded.in_scale
    array = constant(value, node.name)
    assert value is not None
    dtype = stored_dtype(value)
    if dtype not in FLOATS:
        raise Refused(Reason.BLOCKED_BY_OP, node.name, f"weights of type {dtype}")
    return array, dtype, None, None


def _bias(value: ir.Value | None, node: ir.Node) -> F64 | None:
    """A bias in float64, unrounded where it was folded before; None where there is none."""
    if value is None or (not value.name and value.producer() is None):
        return None
    folded = stored(value)
    if isinstance(folded, FoldedBias):
        return folded.exact
    return constant(value, node.name).astype(np.float64)


def _linear(
    value: ir.Value | None,
    node: ir.Node,
    axes: tuple[int, int],
    groups: int = 1,
    bias: F64 | None = None,
    alpha: float = 1.0,
    border: Border = Border.NONE,
) -> Linear:
    quantizer = dequantizer(value)
    if quantizer is not None:
        quantized, scale = read_quantized(quantizer, axes, groups, node.name)
        linear = Linear.of(quantized, bias, alpha, border)
        return replace(linear, out_scale=linear.out_scale * scale)
    stored, dtype, out_scale, in_scale = _weight(value, node)
    weight = Weight(stored, dtype, axes[0] % stored.ndim, axes[1] % stored.ndim, groups)
    linear = Linear.of(weight, bias, alpha, border)
    if out_scale is None or in_scale is None:
        return linear
    return Linear(weight, linear.out_scale * out_scale, in_scale, linear.bias, border)


def _written(
    value: ir.Value | None, changed: Linear, node: ir.Node, opset: int
) -> tuple[tuple[NewNode, ...], Operand]:
    """A changed weight: what has to be computed before the op, and what the op reads."""
    quantizer = dequantizer(value)
    if quantizer is not None:
        return (write_quantized(quantizer, changed, node.name, opset),), PREVIOUS
    return (), NewConstant(changed.weight_tensor(node.name), _like(value, node, "weight"))


def _data(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise Refused(Reason.BLOCKED_BY_OP, node.name, "it has no data input")
    return value


def _attributes(node: ir.Node, *, without: tuple[str, ...] = ()) -> tuple[ir.Attr, ...]:
    return tuple(attr for name, attr in node.attributes.items() if name not in without)


def _rebuilt(
    node: ir.Node, op_type: str, inputs: tuple[Operand, ...], attributes: tuple[ir.Attr, ...] = ()
) -> NewNode:
    """A node in place of another, under its name."""
    return NewNode(op_type, inputs, node.name, attributes, metadata=dict(node.metadata_props))


def _like(value: ir.Value | None, node: ir.Node, what: str) -> str:
    """A name to derive a new constant's name from."""
    if value is not None and value.name:
        return value.name
    return f"{node.name or node.outputs[0].name}.{what}"


# -- Conv and ConvTranspose: weight [O, I/G, ...] and [I, O/G, ...], bias [O] ---------------------


def _read_conv(node: ir.Node, opset: int, axes: tuple[int, int] = (0, 1)) -> LinearOp:
    value = node.inputs[1] if len(node.inputs) > 1 else None
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    border = Border.SCATTERED if axes == (1, 0) else (Border.PADDED if _is_padded(node) else Border.NONE)
    bias = _bias(bias_value, node)
    groups = int_of(node, "group", 1)
    linear = _linear(value, node, axes, groups, bias, border=border)
    shape = linear.weight.stored.shape
    if len(shape) < 3 or groups < 1 or shape[0] % groups:
        detail = f"a weight of shape {list(shape)} for {groups} groups"
        raise Refused(Reason.AXIS_MISMATCH, node.name, detail)

    def write(changed: Linear) -> tuple[NewNode, ...]:
        before, weight = _written(value, changed, node, opset)
        inputs = [node.inputs[0], weight]
        if changed.has_bias or bias_value is not None:
            bias = changed.bias_tensor(node.name)
            inputs.append(NewConstant(bias, _like(bias_value, node, "bias")))
        conv = _rebuilt(node, node.op_type, tuple(inputs), _attributes(node))
        return (*before, conv)

    assert value is not None
    return LinearOp((node,), _data(node, 0), linear, 1, 1, write, value)


def _is_padded(node: ir.Node) -> bool:
    return string_of(node, "auto_pad", "NOTSET").startswith("SAME") or any(ints_of(node, "pads", ()))


def _read_conv_transpose(node: ir.Node, opset: int) -> LinearOp:
    return _read_conv(node, opset, axes=(1, 0))


# -- Gemm: alpha * A' * B' + beta * C, output [M, N] ---------------------------------------------


def _read_gemm(node: ir.Node, opset: int) -> LinearOp:
    if opset < 7:
        raise Refused(Reason.BLOCKED_BY_OP, node.name, f"Gemm of opset {opset}")
    index = 0 if is_constant(node.inputs[0]) and not is_constant(node.inputs[1]) else 1
    value, data = node.inputs[index], _data(node, 1 - index)
    turned = int_of(node, "transB" if index else "transA", 0)
    # A' is [M, K] and B' is [K, N]: outputs lie on A's first axis, or on B's last.
    axes = (0, 1) if bool(turned) == bool(index) else (1, 0)
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    beta = float_of(node, "beta", 1.0)
    if beta == 0:  # then C is not read, whatever it holds
        bias_value = None
    bias = _bias(bias_value, node)
    if bias is not None:
        bias = bias * beta
        if index == 0:
            if bias.size > 1 and (bias.ndim != 2 or bias.shape[1] != 1):
                raise Refused(Reason.AXIS_MISMATCH, node.name, "its bias does not lie along its outputs")
            bias = bias.reshape(-1)
    linear = _linear(value, node, axes, 1, bias, float_of(node, "alpha", 1.0))

    def write(changed: Linear) -> tuple[NewNode, ...]:
        before, weight = _written(value, changed, node, opset)
        inputs: list[Operand] = [data, weight] if index else [weight, data]
        if changed.has_bias or bias_value is not None:
            exact = changed.bias_tensor(node.name, None if index else (changed.weight.outputs, 1))
            inputs.append(NewConstant(exact, _like(bias_value, node, "bias")))
        attributes = _attributes(node, without=("alpha", "beta", "broadcast"))
        return (*before, _rebuilt(node, "Gemm", tuple(inputs), attributes))

    assert value is not None
    data_turned = int_of(node, "transA" if index else "transB", 0)
    in_axis = 1 if bool(data_turned) != bool(index) else 0
    return LinearOp((node,), data, linear, index, in_axis, write, value)


# -- MatMul, with or without the Add of a bias ----------------------------------------------------


def bias_of_matmul(node: ir.Node) -> ir.Node | None:
    """The MatMul whose bias this Add adds, or None.

    The bias must lie along the axis of the MatMul's outputs and leave its shape as it is.
    """
    if node.domain or node.op_type != "Add" or len(node.inputs) != 2:
        return None
    for index in (0, 1):
        data, bias = node.inputs[index], node.inputs[1 - index]
        matmul = None if data is None else data.producer()
        if (
            data is None
            or matmul is None
            or matmul.op_type != "MatMul"
            or matmul.domain
            or not is_constant(bias)
        ):
            continue
        if len(data.uses()) != 1 or data.is_graph_output() or matmul.graph is not node.graph:
            continue
        try:
            if _bias_fits(matmul, constant(bias), data):
                return matmul
        except Refused:
            continue
    return None


def _bias_fits(matmul: ir.Node, bias: Array, data: ir.Value) -> bool:
    index = _weight_index(matmul)
    if index is None:
        return False
    weight = _matrix(matmul, index)
    if len(weight) != 2 or data.shape is None or bias.ndim > len(data.shape):
        return False
    outputs = weight[1] if index == 1 else weight[0]
    wanted = (outputs,) if index == 1 else (outputs, 1)
    padded = (1,) * (len(wanted) - bias.ndim) + bias.shape
    return bias.size == outputs and padded[len(padded) - len(wanted) :] == wanted


def _matrix(matmul: ir.Node, index: int) -> tuple[int, ...]:
    """Shape of a MatMul's weight."""
    value = matmul.inputs[index]
    quantizer = dequantizer(value)
    source = quantizer.inputs[0] if quantizer else value
    tensor = None if source is None else stored(source)
    if tensor is not None:  # a folded weight need not be multiplied out for it
        return tuple(int(length) for length in tensor.shape.numpy())
    return constant(source, matmul.name).shape


def _weight_index(node: ir.Node) -> int | None:
    """Which operand of a MatMul is the constant weight, or None where none or both are."""
    left, right = (is_constant(value) or dequantizer(value) is not None for value in node.inputs)
    return None if left == right else (0 if left else 1)


def _read_matmul(node: ir.Node, opset: int, add: ir.Node | None = None) -> LinearOp:
    index = _weight_index(node)
    if index is None or opset < 7:
        raise Refused(Reason.NOT_CONSTANT, node.name, "neither operand is a constant weight")
    value, data = node.inputs[index], _data(node, 1 - index)
    output = node.outputs[0]
    rank = _rank(output, data)
    axes = (1, 0) if index == 1 else (0, 1)
    bias_value, bias = None, None
    if add is not None:
        bias_value = next(each for each in add.inputs if each is not output)
        bias = _bias(bias_value, add)
        bias = None if bias is None else bias.reshape(-1)
    if len(_matrix(node, index)) != 2:
        raise Refused(Reason.AXIS_MISMATCH, node.name, "its weight is a stack of matrices")
    linear = _linear(value, node, axes, 1, bias)
    out_axis = rank - 1 if index == 1 else rank - 2

    def write(changed: Linear) -> tuple[NewNode, ...]:
        before, weight = _written(value, changed, node, opset)
        operands = (data, weight) if index == 1 else (weight, data)
        if add is None and not changed.has_bias:
            return (*before, _rebuilt(node, "MatMul", operands))
        shape = None if index == 1 else (changed.weight.outputs, 1)
        exact = changed.bias_tensor(node.name, shape)
        constant_bias = NewConstant(exact, _like(bias_value, node, "bias"))
        if rank == 2:
            gemm = (*operands, constant_bias)
            return (*before, _rebuilt(node, "Gemm", gemm))
        name = add.name if add is not None else f"{node.name or output.name}/bias"
        return (
            *before,
            _rebuilt(node, "MatMul", operands),
            NewNode("Add", (PREVIOUS, constant_bias), name),
        )

    assert value is not None
    nodes = (node,) if add is None else (node, add)
    return LinearOp(nodes, data, linear, out_axis, out_axis, write, value)


def _rank(output: ir.Value, data: ir.Value) -> int:
    """Rank of a MatMul's output; a matrix times a stack keeps the stack's rank.

    Raises:
        Refused: `unknown-shape`, or `axis-mismatch` for a vector operand.
    """
    shape = output.shape if output.shape is not None else data.shape
    if shape is None:
        raise Refused(Reason.UNKNOWN_SHAPE, output.name, "the rank of the product is not known")
    if data.shape is not None and len(data.shape) < 2:
        raise Refused(Reason.AXIS_MISMATCH, output.name, "the operand is a vector")
    return len(shape)


READERS: Mapping[str, Callable[[ir.Node, int], LinearOp]] = {
    "Conv": _read_conv,
    "ConvTranspose": _read_conv_transpose,
    "Gemm": _read_gemm,
    "MatMul": _read_matmul,
}
