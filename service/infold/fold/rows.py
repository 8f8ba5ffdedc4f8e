"""A MatMul over a stack of rows whose new bias would stand apart, written as one Gemm.

Gemm takes a matrix. Where a Reshape behind the bias merges the stack into rows anyway,
it may just as well merge it in front:

    Reshape(x @ W + b, [-1, O])  =  Gemm(Reshape(x, [-1, C]), W, b)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from infold.fold.constants import stored
from infold.fold.layouts import LinearOp, linear_op
from infold.fold.linear import FoldedBias
from infold.fold.patch import PREVIOUS, NewConstant, NewNode, Operand, Replacement
from infold.fold.report import Refused

__all__ = ["merged_rows"]


def merged_rows(graph: ir.Graph, opset: int) -> Iterator[Replacement]:
    """For each bias that a fold has made: MatMul, Add, Reshape as Reshape, Gemm, where that is the same."""
    for add in list(graph):
        op = _newly_biased(add, opset)
        merging = None if op is None else _merging(op)
        if op is not None and merging is not None:
            yield Replacement((*op.nodes, merging), _written(op, merging))


def _newly_biased(add: ir.Node, opset: int) -> LinearOp | None:
    """The MatMul whose bias this Add adds, if a fold has written that bias and the weight is on the right."""
    if add.op_type != "Add" or not any(_is_folded(value) for value in add.inputs):
        return None
    try:
        op = linear_op(add, opset)
    except Refused:
        return None
    return op if op is not None and op.nodes[0].inputs[0] is op.input else None


def _is_folded(value: ir.Value | None) -> bool:
    return value is not None and isinstance(stored(value), FoldedBias)


def _merging(op: LinearOp) -> ir.Node | None:
    """The one reader of the op's result, if it merges the leading axes and keeps the last."""
    result = op.nodes[-1].outputs[0]
    uses = result.uses()
    if len(uses) != 1 or result.is_graph_output():
        return None
    node, index = next(iter(uses))
    shape = node.outputs[0].shape if node.op_type in ("Reshape", "Flatten") and not node.domain else None
    if shape is None or index != 0 or node.graph is not op.nodes[-1].graph:
        return None
    # As many elements in rows of the same length are the same rows, whatever the other lengths are.
    weight = op.linear.weight
    return node if len(shape) == 2 and shape[1] == weight.outputs > 0 < weight.inputs else None


def _written(op: LinearOp, merging: ir.Node) -> tuple[NewNode, ...]:
    matmul, add = op.nodes
    bias = next(value for value in add.inputs if _is_folded(value))
    rows, width = merging.outputs[0].shape, op.linear.weight.inputs
    assert rows is not None
    inputs: tuple[Operand, ...] = (op.input,)
    if merging.op_type == "Reshape":
        shape = ir.Tensor(np.array([-1, width], np.int64))
        inputs = (op.input, NewConstant(shape, f"{op.input.name}.rows"))
    attributes = tuple(merging.attributes.values()) if merging.op_type == "Flatten" else ()
    like = ir.Value(name=f"{op.input.name}/rows", type=op.input.type, shape=ir.Shape((rows[0], width)))
    return (
        NewNode(merging.op_type, inputs, merging.name, attributes, like, dict(merging.metadata_props)),
        NewNode(
            "Gemm", (PREVIOUS, matmul.inputs[1], bias), matmul.name, metadata=dict(matmul.metadata_props)
        ),
    )
