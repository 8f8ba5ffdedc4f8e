"""The user's own names on the inputs and outputs of an exported graph."""

from __future__ import annotations

import re

import onnx
import onnx_ir as ir

from infold.convert.frontends.keras.interface import Interface
from infold.convert.frontends.tidy import state_lengths

__all__ = ["with_names"]


def with_names(proto: onnx.ModelProto, interface: Interface) -> onnx.ModelProto:
    """The model with its inputs and outputs called as in Keras, and dimensions after their input.

    Values inside that have such a name already (`add`, `conv2d` are layers' names as well as an
    exporter's) get another. An output that is an input or another output becomes a copy.
    """
    model = ir.from_proto(proto)
    graph = model.graph
    _separate_outputs(graph)
    wanted = {*(spec.name for spec in interface.inputs), *interface.outputs}
    outer = {*graph.inputs, *graph.outputs}
    for value in _values(model):
        if value not in outer and value.name in wanted:
            value.name = f"{value.name}/value"
    for value, name in zip(graph.inputs, [spec.name for spec in interface.inputs], strict=True):
        value.name = name
    for value, name in zip(graph.outputs, interface.outputs, strict=True):
        value.name = name
    result = ir.to_proto(model)
    state_lengths(result.graph)  # or a fixed length would be given the name of an open axis
    _name_dimensions(result.graph)
    return result


def _values(model: ir.Model) -> list[ir.Value]:
    found = []
    for graph in model.graphs():
        found += [*graph.initializers.values()]
        found += [value for node in graph for value in node.outputs]
    return found


def _separate_outputs(graph: ir.Graph) -> None:
    taken = set(graph.inputs) | set(graph.initializers.values())
    for index, value in enumerate(graph.outputs):
        if value in taken:
            copy = ir.node("Identity", [value])
            copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
            copy.outputs[0].name = f"{value.name}/output{index}"
            graph.append(copy)
            graph.outputs[index] = copy.outputs[0]
        taken.add(graph.outputs[index])


def _name_dimensions(graph: onnx.GraphProto) -> None:
    """Exporters number their symbols: `s46` becomes `image_1`, wherever it is part of a length."""
    names: dict[str, str] = {}
    for value in graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                names.setdefault(dim.dim_param, f"{value.name}_{axis}")
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), dim.dim_param)
