"""Unfolded ONNX from torch.

A plain export has its norms folded already by the exporter's own optimizer, so that
nothing would be left to test. Here every norm stays a BatchNormalization node.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch import nn

__all__ = ["OPSET", "export"]

OPSET = 20


def export(module: nn.Module, data: torch.Tensor, path: Path) -> onnx.ModelProto:
    """Export in inference mode, batch axis left open, and write it.

    Args:
        module: The network.
        data: An example input, at least two rows.
        path: Where to write.
    """
    module.eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (data,),
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
        assert program is not None
        model = program.model
        # The exporter leaves shape arithmetic behind: constants, which fold without touching a norm.
        optimizer.fold_constants(model)
        optimizer.remove_unused_nodes(model)
    _drop_zero_biases(model)
    proto = ir.to_proto(model)
    onnx.save(proto, str(path))
    return proto


def _drop_zero_biases(model: ir.Model) -> None:
    """A convolution without bias is exported with a bias of zeros."""
    for node in model.graph:
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.inputs) < 3:
            continue
        tensor = ir.convenience.get_const_tensor(node.inputs[2]) if node.inputs[2] else None
        if tensor is not None and not tensor.numpy().any():
            node.resize_inputs(2)
    optimizer.remove_unused_nodes(model)
