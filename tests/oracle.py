"""Do two models compute the same? Tolerances come from rounding error analysis, never from taste.

Let u be the unit roundoff of the model's dtype. Evaluating a sum of products in
any order, with k roundings on the way from any input number to the result, gives
(Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., lemma 3.1)

    |computed - exact|  <=  gamma_k M,      gamma_k = k u / (1 - k u)

where M is the same expression with every number and every subtraction made
positive: for a linear op and a norm M = |s| (sum |w||x| + |b| + |mean|) + |beta|.
M is computed by running the model on magnitudes: constants and inputs by their
absolute value, Sub as Add, Neg as Identity, a norm's mean negated. One can take
k = sum over nodes of (fan-in + a few), since each node's roundings touch a result
at most once on every path.

1. On onnxruntime, without optimizations, both models stay within gamma_k M of
   the exact result, so they are at most 2 gamma_k M apart.
2. In exact arithmetic (float64 for float32 and float16) only the rounding of the
   written weights and biases is left: each is off by at most u relative, one
   rounding for a weight and one for a bias at each folded op, so the two are at most
   gamma_p M apart where p counts the linear ops on a path. No fan-in appears: this is the
   sharp half of the oracle. Weights that get subnormal are off by at most half the
   smallest subnormal number instead; that times sum |x| is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from infold.tensors import Array

F64 = NDArray[np.float64]
Feeds = Mapping[str, Array]

FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# A product or a sum; a norm is add epsilon, root, divide, subtract, multiply, add, and its constants.
ROUNDINGS = {"BatchNormalization": 8, "Add": 1, "Sub": 1, "Mul": 1, "Div": 1}
# Scaling by alpha and beta, adding the bias, rounding a folded weight and a folded bias.
LINEAR_EXTRA = 5


def assert_equal_within_rounding(
    model: onnx.ModelProto, folded: onnx.ModelProto, feeds: Feeds, *, has_kernels: bool = True
) -> None:
    """Pass if both models compute the same up to rounding, on onnxruntime and in exact arithmetic.

    Args:
        model, folded: The two sides, with the same inputs and outputs.
        feeds: Inputs by name.
        has_kernels: False where onnxruntime implements the model's dtype not at all
            (Conv in float64); then only exact arithmetic speaks.
    """
    bound = magnitudes(model, feeds)
    unit = unit_roundoff(next(array for array in feeds.values() if array.dtype.kind == "f").dtype)
    roundings = count_roundings(model)
    if has_kernels:
        allowed = [2 * gamma(roundings, unit) * m + underflow(model, feeds) for m in bound]
        compare(run(model, feeds), run(folded, feeds), allowed, "on onnxruntime")
    if unit > 2.0**-53:
        linear = sum(node.op_type in LINEAR for node in every_node(model.graph))
        sharp = [gamma(max(1, linear), unit) * m + underflow(model, feeds) for m in bound]
        # float64 itself rounds too, just as often.
        sharp = [s + 2 * gamma(roundings, 2.0**-53) * m for s, m in zip(sharp, bound, strict=True)]
    else:
        sharp = [2 * gamma(roundings, unit) * m for m in bound]
    compare(evaluate(model, feeds), evaluate(folded, feeds), sharp, "in float64")


def unit_roundoff(dtype: np.dtype[np.generic]) -> float:
    """Largest relative error of one rounding to nearest."""
    return float(np.finfo(dtype).eps) / 2


def gamma(k: int, unit: float) -> float:
    """Higham's gamma_k."""
    assert k * unit < 1, "too many roundings for this dtype: the bound says nothing"
    return k * unit / (1 - k * unit)


def compare(want: list[Array], got: list[Array], allowed: list[F64], where: str) -> None:
    """Pass if every element is within what is allowed at its place."""
    assert len(want) == len(got) == len(allowed)
    for a, b, limit in zip(want, got, allowed, strict=True):
        assert a.shape == b.shape, f"{where}: shapes {a.shape} and {b.shape}"
        assert a.dtype == b.dtype
        difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
        assert np.isfinite(difference).all(), f"{where}: not finite"
        excess = difference - limit
        worst = np.unravel_index(excess.argmax(), excess.shape) if excess.size else ()
        most = np.broadcast_to(limit, a.shape)
        assert (excess <= 0).all(), (
            f"{where}: off by {difference[worst]:.3g} at {worst}, allowed {most[worst]:.3g}"
        )


# -- running --------------------------------------------------------------------------------------


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Onnxruntime without graph optimizations, on one thread: it folds norms by itself otherwise."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(model: onnx.ModelProto, feeds: Feeds) -> list[Array]:
    """All outputs, as onnxruntime computes them."""
    return list(session(model).run(None, dict(feeds)))


def evaluate(model: onnx.ModelProto, feeds: Feeds) -> list[Array]:
    """All outputs in float64, as onnx's reference implementation computes them."""
    wide = {
        name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in feeds.items()
    }
    evaluator = ReferenceEvaluator(retyped(model, TensorProto.DOUBLE), new_ops=[ConvTranspose])
    return list(evaluator.run(None, wide))


class ConvTranspose(OpRun):
    """ConvTranspose from its definition; onnx's own reference fails on groups."""

    op_domain = ""

    def _run(self, x: F64, w: F64, b: F64 | None = None, **attributes: Any) -> tuple[F64]:
        space = x.ndim - 2
        group = attributes.get("group") or 1
        strides = attributes.get("strides") or [1] * space
        dilations = attributes.get("dilations") or [1] * space
        pads = attributes.get("pads") or [0] * 2 * space
        extra = attributes.get("output_padding") or [0] * space
        taps = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
        full = [(n - 1) * s + t + e for n, s, t, e in zip(x.shape[2:], strides, taps, extra, strict=True)]
        data = x.reshape(x.shape[0], group, -1, *x.shape[2:])
        kernel = w.reshape(group, -1, *w.shape[1:])
        y = np.zeros((x.shape[0], group * w.shape[1], *full))
        for place in np.ndindex(*w.shape[2:]):
            part = np.einsum("ngi...,gio->ngo...", data, kernel[(..., *place)])
            where = tuple(
                slice(p * d, p * d + (n - 1) * s + 1, s)
                for p, d, n, s in zip(place, dilations, x.shape[2:], strides, strict=True)
            )
            y[(slice(None), slice(None), *where)] += part.reshape(x.shape[0], -1, *x.shape[2:])
        kept = tuple(slice(pads[i], y.shape[2 + i] - pads[space + i]) for i in range(space))
        y = y[(slice(None), slice(None), *kept)]
        return (y if b is None else y + b.reshape(-1, *[1] * space),)


# -- bounds ---------------------------------------------------------------------------------------


def magnitudes(model: onnx.ModelProto, feeds: Feeds) -> list[F64]:
    """M for every output: the model run on magnitudes in float32, lifted by that run's own rounding."""
    positive = retyped(model, TensorProto.FLOAT)
    means = {node.input[3] for node in every_node(positive.graph) if node.op_type == "BatchNormalization"}
    for graph in every_graph(positive.graph):
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                sign = -1 if tensor.name in means else 1
                array = sign * np.abs(numpy_helper.to_array(tensor))
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        for node in graph.node:
            node.op_type = {"Sub": "Add", "Neg": "Identity"}.get(node.op_type, node.op_type)
            for attribute in node.attribute:
                if attribute.name in ("alpha", "beta"):
                    attribute.f = abs(attribute.f)
                if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
                    sign = -1 if node.output[0] in means else 1
                    array = sign * np.abs(numpy_helper.to_array(attribute.t))
                    attribute.t.CopyFrom(numpy_helper.from_array(array))
    inputs = {
        name: np.abs(array).astype(np.float32) if array.dtype.kind == "f" else array
        for name, array in feeds.items()
    }
    lift = 1 + gamma(count_roundings(model), 2.0**-24)
    return [array.astype(np.float64) * lift for array in run(positive, inputs)]


def origin(name: str, producers: Mapping[str, onnx.NodeProto]) -> str:
    """The initializer that a value is a mere relabelling of."""
    while name in producers and producers[name].input:
        name = producers[name].input[0]
    return name


def count_roundings(model: onnx.ModelProto) -> int:
    """An upper bound of the roundings on any path through the model."""
    total = 1
    for graph in every_graph(model.graph):
        sizes = {tensor.name: fan_in(tensor.dims) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type in LINEAR:
                total += max((sizes.get(name, 1) for name in node.input), default=1) + LINEAR_EXTRA
            else:
                total += ROUNDINGS.get(node.op_type, 0)
    return total


def fan_in(dims: Any) -> int:
    """No output sums up more products than this, whichever axis of the weight counts outputs."""
    lengths = list(dims) or [1]
    return int(np.prod(lengths)) // min(lengths[0], lengths[1] if len(lengths) > 1 else lengths[0])


def underflow(model: onnx.ModelProto, feeds: Feeds) -> float:
    """What weights can lose below the smallest normal number: half a subnormal step each."""
    arrays = [array for array in feeds.values() if array.dtype.kind == "f"]
    step = float(np.finfo(arrays[0].dtype).smallest_subnormal) / 2
    largest = max(float(np.abs(array).max(initial=0.0)) for array in arrays)
    return step * count_roundings(model) * (1 + largest)


# -- rewriting ------------------------------------------------------------------------------------


def every_graph(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """The graph and all its subgraphs."""
    found = [graph]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += every_graph(attribute.g)
    return found


def every_node(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """All nodes of the graph and its subgraphs."""
    return [node for each in every_graph(graph) for node in each.node]


def retyped(model: onnx.ModelProto, to: int) -> onnx.ModelProto:
    """A copy in which every floating point number has another dtype; the numbers are the same."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    dtype = np.float64 if to == TensorProto.DOUBLE else np.float32
    for graph in every_graph(made.graph):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type in FLOAT_TYPES:
                value.type.tensor_type.elem_type = to
        for tensor in graph.initializer:
            _retype(tensor, dtype)
    for node in (*every_node(made.graph), *(n for f in made.functions for n in f.node)):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _retype(attribute.t, dtype)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in FLOAT_TYPES:
                attribute.i = to
    return made


def _retype(tensor: onnx.TensorProto, dtype: type[np.floating[Any]]) -> None:
    if tensor.data_type in FLOAT_TYPES:
        array = numpy_helper.to_array(tensor).astype(dtype)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
