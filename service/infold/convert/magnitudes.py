"""What rounding in a linear op is proportional to: sum |w||x| + |b|, at each output element.

The sums are taken by onnxruntime itself, on a model made of nothing but the
linear ops in question with the magnitudes of their weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir

from infold.fold import LinearOp
from infold.fold.affine import F64
from infold.fold.linear import FoldedTensor
from infold.runtime import Run, run_isolated
from infold.tensors import Array

__all__ = ["magnitudes"]

OPSET, IR_VERSION = 13, 8  # Conv, ConvTranspose, Gemm and MatMul mean the same in every opset since 7


def magnitudes(ops: Sequence[LinearOp], feeds: Sequence[Mapping[str, Array]]) -> list[dict[str, F64]]:
    """Sum magnitudes through linear ops, for several sets of inputs.

    Args:
        ops: The linear ops.
        feeds: For each set, the data of every op by the name of its input value; any sign.

    Returns:
        For each set, `sum |w||x|` by the name of the op, in the shape of its output.
    """
    if not ops:
        return [{} for _ in feeds]
    with TemporaryDirectory(prefix="infold-magnitudes-") as name:
        path = Path(name) / "magnitudes.onnx"
        onnx.save(_model(ops), str(path))
        runs = [Run("magnitudes", path, _tensors(ops, feed)) for feed in feeds]
        results = run_isolated(runs)
    return [{op.name: result[f"m{i}"].astype(np.float64) for i, op in enumerate(ops)} for result in results]


def bias_magnitude(op: LinearOp, rank: int) -> F64:
    """`|b|`, shaped to broadcast against the op's output of that rank."""
    bias = np.abs(op.linear.bias)
    if bias.ndim > 1:  # differs by row: the last axis counts outputs already
        return bias
    return bias.reshape([-1 if axis == op.out_axis else 1 for axis in range(rank)])


def _tensors(ops: Sequence[LinearOp], feed: Mapping[str, Array]) -> dict[str, Array]:
    return {f"x{i}": np.abs(feed[op.input.name or ""].astype(np.float32)) for i, op in enumerate(ops)}


def _model(ops: Sequence[LinearOp]) -> onnx.ModelProto:
    nodes, inputs, outputs, weights = [], [], [], []
    for i, op in enumerate(ops):
        node = op.nodes[0]
        exact = FoldedTensor(op.linear.weight, op.linear.out_scale, op.linear.in_scale)
        weights.append(onnx.numpy_helper.from_array(np.abs(exact.numpy().astype(np.float32)), f"w{i}"))
        data_first = node.inputs[0] is op.input
        operands = [f"x{i}", f"w{i}"] if data_first else [f"w{i}", f"x{i}"]
        made = onnx.helper.make_node(node.op_type, operands, [f"m{i}"])
        for name, attribute in node.attributes.items():
            if name not in ("alpha", "beta"):  # these are in the weight already
                made.attribute.append(ir.serde.serialize_attribute(attribute))
        nodes.append(made)
        inputs.append(onnx.helper.make_tensor_value_info(f"x{i}", onnx.TensorProto.FLOAT, None))
        outputs.append(onnx.helper.make_tensor_value_info(f"m{i}", onnx.TensorProto.FLOAT, None))
    graph = onnx.helper.make_graph(nodes, "magnitudes", inputs, outputs, weights)
    imports = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
