"""Small models for tests: the graph as ONNX text, the numbers from numpy.

`model(...)` fixes the IR version and the opset, because onnx's own defaults are
newer than what onnxruntime loads. `fold(...)` is the fold floor alone: a proto
in, a proto and the report out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.parser import parse_model

from infold.fold import Decision, FoldReport, fold_batch_norms

Array = NDArray[np.generic]

ONNX_TYPES = {"float32": "float", "float64": "double", "float16": "float16", "bfloat16": "bfloat16"}
NORM_NAMES = ("gamma", "beta", "mean", "variance")


def model(
    text: str,
    weights: Mapping[str, Array] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 8,
    extra: str = "",
) -> onnx.ModelProto:
    """A model from the text of its graph (and of functions after it) and its initializers.

    Args:
        text: The graph in ONNX text, from its name on.
        weights: Initializers by name.
        extra: More opset imports, such as `, "local" : 1`.
    """
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}{extra}]>\n'
    proto = parse_model(header + text)
    add_initializers(proto.graph, weights or {})
    return proto


def add_initializers(graph: onnx.GraphProto, weights: Mapping[str, Array]) -> None:
    """Append initializers; a dtype numpy lacks comes with ml_dtypes."""
    for name, array in weights.items():
        graph.initializer.append(tensor(array, name))


def tensor(array: Array, name: str) -> onnx.TensorProto:
    """An array as a tensor of that name."""
    if array.dtype.kind in "fiub":
        return numpy_helper.from_array(array, name)
    return ir.to_proto(ir.Tensor(array, name=name))


def norm(channels: int, seed: int = 0, dtype: str = "float32", prefix: str = "") -> dict[str, Array]:
    """Trained parameters as a trained network has them: scales of both signs, variances around one."""
    rng = np.random.default_rng(1000 + seed)
    values = {
        "gamma": rng.uniform(0.5, 1.5, channels) * rng.choice([-1.0, 1.0], channels),
        "beta": rng.uniform(-1.0, 1.0, channels),
        "mean": rng.uniform(-1.0, 1.0, channels),
        "variance": rng.uniform(0.5, 2.0, channels),
    }
    return {prefix + name: cast(array, dtype) for name, array in values.items()}


def normal(*shape: int, seed: int = 0, dtype: str = "float32") -> Array:
    """Standard normal numbers from a fixed seed."""
    return cast(np.random.default_rng(seed).standard_normal(shape), dtype)


def cast(array: NDArray[np.float64], dtype: str) -> Array:
    """The numbers in a dtype, bfloat16 included."""
    if dtype == "bfloat16":
        return array.astype(ir.DataType.BFLOAT16.numpy())
    return array.astype(dtype)


def conv_norm(
    channels: int = 4, *, opset: int = 17, dtype: str = "float32", bias: bool = True
) -> onnx.ModelProto:
    """`x -> conv -> c -> bn -> y`: the smallest thing that folds, two inputs channels, 3x3, padded."""
    kind = ONNX_TYPES[dtype]
    third = ", b" if bias else ""
    weights = {"w": normal(channels, 2, 3, 3, seed=1, dtype=dtype), **norm(channels, dtype=dtype)}
    if bias:
        weights["b"] = normal(channels, seed=2, dtype=dtype)
    return model(
        f"""g ({kind}[N,2,6,6] x) => ({kind}[N,{channels},6,6] y) {{
            [conv] c = Conv <pads=[1,1,1,1]> (x, w{third})
            [bn] y = BatchNormalization <epsilon=0.001> (c, gamma, beta, mean, variance)
        }}""",
        weights,
        opset=opset,
    )


def dense_norm(features: int = 3, units: int = 4, *, opset: int = 17) -> onnx.ModelProto:
    """`x -> Gemm -> h -> BatchNormalization -> y`."""
    return model(
        f"""g (float[N,{features}] x) => (float[N,{units}] y) {{
            [dense] h = Gemm (x, w, b)
            [bn] y = BatchNormalization (h, gamma, beta, mean, variance)
        }}""",
        {"w": normal(features, units, seed=3), "b": normal(units, seed=4), **norm(units)},
        opset=opset,
    )


def relu_only() -> onnx.ModelProto:
    """A model without any norm."""
    return model("g (float[N,4] x) => (float[N,4] y) { [relu] y = Relu (x) }")


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """What folding made of a model."""

    proto: onnx.ModelProto
    report: FoldReport

    @property
    def ops(self) -> list[str]:
        """Operator types of the main graph, in order."""
        return [node.op_type for node in self.proto.graph.node]

    @property
    def only(self) -> Decision:
        """The one decision on a norm."""
        (decision,) = self.report.norms
        return decision


def fold(proto: onnx.ModelProto) -> Folded:
    """Shapes inferred, norms folded: what the converter does, without files and proof."""
    folded, report = fold_batch_norms(to_ir(proto))
    return Folded(ir.to_proto(folded), report)


def to_ir(proto: onnx.ModelProto) -> ir.Model:
    """The model as the fold floor gets it."""
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def op_types(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterable[str]:
    """Operator types of a graph and of every subgraph in it."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from op_types(attribute.g)


def initializer(proto: onnx.ModelProto, name: str) -> Array:
    """The initializer of that name as an array."""
    found = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    return ir.from_proto(found).numpy()


def node_named(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """The node of that name in the main graph."""
    return next(node for node in proto.graph.node if node.name == name)
