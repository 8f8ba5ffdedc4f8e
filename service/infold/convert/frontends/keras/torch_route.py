"""From Keras on PyTorch to ONNX: captured once, translated without the exporter's own optimizer."""

from __future__ import annotations

import logging
import re
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnxscript import optimizer

from infold.convert.frontends.keras.inference import Inference
from infold.convert.frontends.keras.interface import Interface
from infold.convert.frontends.keras.wording import chain
from infold.convert.frontends.tidy import SCOPES

__all__ = ["NAME", "export", "no_gradients"]

NAME = f"torch {torch.__version__}"
OPSET = 20
# Key under which nodes of a captured graph know the layer they come from.
LAYER = "layer"
FX_NODE = re.compile(r"%(\w+)")
LACKING = re.compile(r"No ONNX function found for .*?aten\.(\w+)")

no_gradients = torch.no_grad


class _Flat(torch.nn.Module):  # type: ignore[misc]  # untyped
    """The model as a module: exporters want one, and its weights below it."""

    def __init__(self, interface: Interface) -> None:
        super().__init__()
        self.model = interface.model
        self.flat_call = interface.flat_call

    def forward(self, *tensors: Any) -> tuple[Any, ...]:
        return self.flat_call(*tensors)


def export(interface: Interface, inference: Inference) -> onnx.ModelProto:
    """Export with every norm in the graph; opset 20, weights inside."""
    inference.annotate = lambda path: torch.fx.traceback.annotate({LAYER: path})
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    example = tuple(torch.from_numpy(array) for array in interface.example)
    lengths = tuple(
        {axis: torch.export.Dim.AUTO for axis, dim in enumerate(spec.shape or ()) if dim is None}
        for spec in interface.inputs
    )
    with torch.fx.traceback.preserve_node_meta():
        captured = torch.export.export(_Flat(interface).eval(), example, dynamic_shapes=(lengths,))
    try:
        program = torch.onnx.export(
            captured,
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as failure:
        if lacking := _lacking(captured, failure, inference):
            raise RuntimeError(lacking) from None
        raise
    model = program.model
    # Shape arithmetic and the norms' own constants: none of this touches a norm.
    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)
    _note_layers(captured, model)
    _state_lengths(captured, model)
    proto: onnx.ModelProto = ir.to_proto(model)
    return proto


def _note_layers(captured: Any, model: ir.Model) -> None:
    """Each node knows the layer it comes from, where torch's exporter notes modules."""
    layers = {node.name: node.meta.get("custom", {}).get(LAYER) for node in captured.graph.nodes}
    for node in model.graph:
        call = FX_NODE.match(node.metadata_props.get("pkg.torch.onnx.fx_node", ""))
        if call is not None:
            scopes = ["", layers.get(call[1]) or "", call[1]]
            node.metadata_props[SCOPES] = repr(scopes)


def _state_lengths(captured: Any, model: ir.Model) -> None:
    """What capturing fixed is no open axis, whatever the exporter writes."""
    signature = captured.graph_signature
    values = {node.name: node.meta.get("val") for node in captured.graph.nodes if node.op == "placeholder"}
    for value, name in zip(model.graph.inputs, signature.user_inputs, strict=True):
        if value.shape is not None:
            for axis, length in enumerate(values[name].shape):
                if isinstance(length, int):
                    value.shape[axis] = length


def _lacking(captured: Any, failure: Exception, inference: Inference) -> str | None:
    """Which operator of which layer the exporter lacks, if that is what it failed on."""
    found = [LACKING.search(str(each)) for each in chain(failure)]
    operator = next((match[1] for match in found if match), None)
    if operator is None:
        return None
    for node in captured.graph.nodes:
        if operator.strip("_") in str(node.target):
            inference.failed = node.meta.get("custom", {}).get(LAYER)
            break
    return f"ONNX, or its exporter, has no operator like PyTorch's {operator}"
