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

from infold.convert.blocks import Scaled
from infold.fold import LinearOp
from infold.fold.affine import F64
from infold.fold.linear import FoldedTensor
from infold.runtime import Run, run_isolated
from infold.tensors import Array

__all__ = ["bias_magnitude", "key", "magnitudes"]

OPSET, IR_VERSION = 13, 8  # Conv, ConvTranspose, Gemm and MatMul mean the same in every opset since 7


def magnitudes(ops: Sequence[LinearOp], feeds: Sequence[Mapping[str, Array]]) -> list[dict[str, Scaled]]:
    """Sum magnitudes through linear ops, for several sets of inputs.

    Args:
        ops: The linear ops.
        feeds: For each set, the data of every op by the name of its input value; any sign.

    Returns:
        For each set, `sum |w||x|` by the key of the op, in the shape of its output.
    """
    if not ops:
        return [{} for _ in feeds]
    # Everything is scaled to at most 1 and back, so that no float64 model leaves float32's range.
    weights, units = zip(*(_to_one(_exact(op)) for op in ops), strict=True)
    tensors, peaks = zip(*(_tensors(ops, feed) for feed in feeds), strict=True)
    with TemporaryDirectory(prefix="infold-magnitudes-") as name:
        path = Path(name) / "magnitudes.onnx"
        onnx.save(_model(ops, weights), str(path))
        results = run_isolated([Run("magnitudes", path, each) for each in tensors])
    return [
        {key(op): Scaled(result[f"m{i}"], units[i] * peak[i]) for i, op in enumerate(ops)}
        for result, peak in zip(results, peaks, strict=True)
    ]


def key(op: LinearOp) -> str:
    """What tells an op from the others of its graph: names of nodes may be missing."""
    return op.nodes[0].outputs[0].name or ""


def bias_magnitude(op: LinearOp, rank: int) -> F64:
    """`|b|`, shaped to broadcast against the op's output of that rank."""
    bias = np.abs(op.linear.bias)
    if bias.ndim > 1:  # differs by row: the last axis counts outputs already
        return bias
    return bias.reshape([-1 if axis == op.out_axis else 1 for axis in range(rank)])


def _exact(op: LinearOp) -> F64:
    linear = op.linear
    return FoldedTensor(linear.weight, linear.out_scale, linear.in_scale).exact()


def _to_one(array: Array) -> tuple[Array, float]:
    """Magnitudes divided by their finite peak, in float32, and the peak."""
    sizes = np.abs(array if array.dtype == np.float64 else array.astype(np.float32))
    peak = np.max(sizes, initial=0.0, where=np.isfinite(sizes)) or 1.0
    sizes /= peak
    return sizes.astype(np.float32, copy=False), float(peak)


def _tensors(ops: Sequence[LinearOp], feed: Mapping[str, Array]) -> tuple[dict[str, Array], list[float]]:
    scaled = [_to_one(feed[op.input.name or ""]) for op in ops]
    return {f"x{i}": data for i, (data, _) in enumerate(scaled)}, [peak for _, peak in scaled]


def _model(ops: Sequence[LinearOp], weights: Sequence[Array]) -> onnx.ModelProto:
    nodes, inputs, outputs = [], [], []
    for i, op in enumerate(ops):
        node = op.nodes[0]
        data_first = node.inputs[0] is op.input
        operands = [f"x{i}", f"w{i}"] if data_first else [f"w{i}", f"x{i}"]
        made = onnx.helper.make_node(node.op_type, operands, [f"m{i}"])
        for name, attribute in node.attributes.items():
            if name not in ("alpha", "beta"):  # these are in the weight already
                made.attribute.append(ir.serde.serialize_attribute(attribute))
        nodes.append(made)
        inputs.append(onnx.helper.make_tensor_value_info(f"x{i}", onnx.TensorProto.FLOAT, None))
        outputs.append(onnx.helper.make_tensor_value_info(f"m{i}", onnx.TensorProto.FLOAT, None))
    stored = [onnx.numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)]
    graph = onnx.helper.make_graph(nodes, "magnitudes", inputs, outputs, stored)
    imports = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
