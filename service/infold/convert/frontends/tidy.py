"""What every exporter leaves behind, put right: nothing here touches a norm."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from infold.convert.frontends.onnx import MAX_IR_VERSION

__all__ = ["BATCH", "tidy"]

BATCH = "batch"


def tidy(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same computation without the exporter's debris.

    All-zero biases of convolutions go (one exporter writes them in the wrong rank), and so
    do nodes and initializers that nothing reads, stated inner shapes and unused opsets. An
    open batch axis has one name on all inputs and outputs.
    """
    model = ir.from_proto(proto)
    for node in model.graph:
        _drop_zero_bias(node)
    RemoveUnusedNodesPass()(model)
    used = {node.domain for graph in model.graphs() for node in graph} | {
        "",
        *(key[0] for key in model.functions),
    }
    for domain in set(model.opset_imports) - used:
        del model.opset_imports[domain]
    result = ir.to_proto(model)
    result.ir_version = min(result.ir_version, MAX_IR_VERSION)
    del result.graph.value_info[:]
    _name_batch_axis(result.graph)
    return result


def _drop_zero_bias(node: ir.Node) -> None:
    if node.op_type not in ("Conv", "ConvTranspose") or len(node.inputs) < 3 or node.inputs[2] is None:
        return
    tensor = ir.convenience.get_const_tensor(node.inputs[2])
    if tensor is not None and not np.any(tensor.numpy()):
        node.resize_inputs(2)


def _name_batch_axis(graph: onnx.GraphProto) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    firsts = [_first_dim(value) for value in inputs]
    if not firsts or any(dim is None or dim.HasField("dim_value") for dim in firsts):
        return
    for value in (*inputs, *graph.output):
        dim = _first_dim(value)
        if dim is not None and not dim.HasField("dim_value"):
            dim.dim_param = BATCH


def _first_dim(value: onnx.ValueInfoProto) -> onnx.TensorShapeProto.Dimension | None:
    shape = value.type.tensor_type.shape
    return shape.dim[0] if shape.dim else None
