"""Looks inside unfolded ONNX: which of its values is what a norm of the framework gave."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime

from infold.convert.frontends.exported import Call
from infold.tensors import Array, Tensors

__all__ = ["NORM_ENDS", "all_values", "difference", "value_of"]

# Operators one of which ends every spelling of a norm.
NORM_ENDS = ("BatchNormalization", "Add", "Sub", "Mul", "Div")


def all_values(proto: onnx.ModelProto, samples: Tensors) -> dict[str, Array]:
    """Outputs, and whatever a norm may have ended in, as onnxruntime computes them unoptimized."""
    seen = onnx.ModelProto()
    seen.CopyFrom(proto)
    outputs = [value.name for value in seen.graph.output]
    names = [node.output[0] for node in seen.graph.node if node.op_type in NORM_ENDS]
    for name in names:
        if name not in outputs:
            seen.graph.output.add().name = name
    names = [name for name in outputs if name not in names] + names
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(seen.SerializeToString(), options)
    return dict(zip(names, session.run(names, dict(samples)), strict=True))


def difference(got: Array, want: Array) -> float:
    """Largest absolute difference, relative to the largest magnitude wanted."""
    if got.shape != want.shape:
        return float("inf")
    got64, want64 = got.astype(np.float64), want.astype(np.float64)
    return float(np.abs(got64 - want64).max(initial=0.0) / max(1e-30, np.abs(want64).max(initial=0.0)))


def value_of(call: Call, values: dict[str, Array], taken: set[str], allowed: float = 1e-5) -> str | None:
    """Name of the value that a use of a norm gave, its channel axis second or last; None if there is none.

    Of several the last: a norm without beta may end in adding zeros.
    """
    given = np.asarray(call.value)
    layouts = [given] if given.ndim < 3 else [given, np.moveaxis(given, -1, 1), np.moveaxis(given, 1, -1)]
    for name, value in reversed(values.items()):
        if name not in taken and any(difference(value, layout) <= allowed for layout in layouts):
            return name
    return None
