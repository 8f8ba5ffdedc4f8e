"""What every exporter leaves behind, put right: nothing here touches a norm."""

from __future__ import annotations

import re
from ast import literal_eval
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from infold.convert.frontends.onnx import MAX_IR_VERSION

__all__ = ["BATCH", "SCOPES", "state_lengths", "tidy"]

BATCH = "batch"
# Where torch's exporter notes the modules that a node was called in, outermost first.
SCOPES = "pkg.torch.onnx.name_scopes"
# What TensorFlow puts before the names of a function's nodes.
CALLED = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
DIGITS = re.compile("[0-9]+")
# What a module is all by itself; other nodes are but a step in one.
MODULES = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"})


def tidy(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same computation without the exporter's debris.

    All-zero biases of convolutions go (one exporter writes them in the wrong rank), and so
    do nodes and initializers that nothing reads, stated inner shapes and unused opsets. An
    open batch axis has one name on all inputs and outputs. What an exporter noted beside the
    graph (call stacks with paths of this machine) goes too; only the module a node belongs to
    is kept, as its name. A length that stands where a symbol should is a fixed length.
    """
    model = ir.from_proto(proto)
    taken: set[str] = set()
    for node in model.graph:
        _drop_zero_bias(node)
        _name_after_module(node, taken)
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
    _forget_notes(result)
    state_lengths(result.graph)
    _name_batch_axis(result.graph)
    return result


def state_lengths(graph: onnx.GraphProto) -> None:
    """Fixed lengths as numbers: one exporter writes `"16"`, which reads like the name of an open axis."""
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if DIGITS.fullmatch(dim.dim_param):
                dim.dim_value = int(dim.dim_param)


def _drop_zero_bias(node: ir.Node) -> None:
    if node.op_type not in ("Conv", "ConvTranspose") or len(node.inputs) < 3 or node.inputs[2] is None:
        return
    tensor = ir.convenience.get_const_tensor(node.inputs[2])
    if tensor is not None and not np.any(tensor.numpy()):
        node.resize_inputs(2)


def _name_after_module(node: ir.Node, taken: set[str]) -> None:
    """`blocks.0.conv` where torch's exporter has noted it, else the name as it is; unique."""
    noted = node.metadata_props.get(SCOPES)
    name = CALLED.sub("", node.name or "")
    if noted is not None:
        *modules, call = [""] + [scope for scope in literal_eval(noted) if scope]
        is_module = node.op_type in MODULES and modules[-1:] != [""]
        name = modules[-1] if is_module else "/".join(part for part in (*modules[-1:], call) if part)
    unique, count = name, 1
    while unique and unique in taken:
        count += 1
        unique = f"{name}:{count}"
    taken.add(unique)
    node.name = unique


def _forget_notes(proto: onnx.ModelProto) -> None:
    graph = proto.graph
    del proto.metadata_props[:]
    parts: list[Any] = [graph, *graph.node, *graph.input, *graph.output, *graph.initializer]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""


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
