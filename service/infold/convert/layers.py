"""Finds the user's own layers in the exported graph, by what they compute.

Exporters rename, split and merge. But the framework has told what every norm
gave on the samples (`Call`), so the value of the graph that equals it is that
layer's output, whatever it is called. Its node is marked with the layer's name,
and from there on every report speaks of `block3/bn2` and not of `Mul_147`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from infold.convert.frontends.exported import Call, Framework
from infold.convert.frontends.onnx import Source
from infold.convert.side_by_side import run_inside
from infold.fold.sites import LAYER
from infold.tensors import Array, Tensors

__all__ = ["Layer", "find_layers"]

# What the last node of a norm can be, in any spelling.
ENDS = frozenset({"BatchNormalization", "Add", "Sub", "Mul", "Div", "Neg"})
# A value further away than this from what the layer gave, over its largest magnitude, is another value.
NEAR = 1e-2
PEEK = 64


@dataclass(frozen=True, slots=True)
class Layer:
    """One use of one norm of the framework's model.

    Attributes:
        name: The layer's name; `name:2` for the second use of a shared layer.
        norm: Index in `Framework.norms`.
        value: The graph's value that is its output; empty where none is near it.
        error: Largest distance between the two over the largest magnitude; infinite
            where nothing is near.
    """

    name: str
    norm: int
    value: str
    error: float


def find_layers(source: Source) -> tuple[Source, tuple[Layer, ...], Tensors]:
    """Mark the end of each layer in the graph.

    Args:
        source: An exported model with what its framework says.

    Returns:
        The source with marked nodes, every use of a norm in the order the framework
        made them, and the unfolded model's own outputs on the samples.

    Raises:
        ProofError: The exported model does not run.
    """
    framework = source.framework
    assert framework is not None
    names = list(_ends(source.proto.graph)) if framework.answer.calls else []
    values = run_inside(source.proto, source.folder, names, framework.samples)
    layers = tuple(_match(framework, {name: values[name] for name in names}, source.proto.graph))
    marked = onnx.ModelProto()
    marked.CopyFrom(source.proto)
    if not layers:
        layers = tuple(_by_statistics(framework, marked.graph))
    _mark(marked.graph, {layer.value: layer.name for layer in layers if layer.value})
    outputs = {value.name: values[value.name] for value in source.proto.graph.output}
    return replace(source, proto=marked), layers, outputs


def _ends(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        if node.op_type in ENDS and node.output[0]:
            yield node.output[0]


def _match(framework: Framework, values: Tensors, graph: onnx.GraphProto) -> Iterator[Layer]:
    """The nearest value to each call that no earlier call took; the first of equals, to its end."""
    free = dict.fromkeys(values)
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).extend(output for output in node.output if output in free)
    uses: Counter[int] = Counter()
    for call in framework.answer.calls:
        uses[call.norm] += 1
        layer = framework.norms[call.norm].layer
        name = layer if uses[call.norm] == 1 else f"{layer}:{uses[call.norm]}"
        errors = {each: error for each in free if (error := _distance(call, values[each])) <= NEAR}
        best = min(errors, key=errors.__getitem__, default="")
        # A norm without beta may end in adding zeros: the same value once more.
        while more := [each for each in readers.get(best, ()) if errors.get(each) == errors[best]]:
            best = more[0]
        free.pop(best, None)
        yield Layer(name, call.norm, best, errors.get(best, float("inf")))


def _by_statistics(framework: Framework, graph: onnx.GraphProto) -> Iterator[Layer]:
    """Where the framework shows no values: the BatchNormalization with the very same statistics."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    free = [node for node in graph.node if node.op_type == "BatchNormalization" and node.input[3] in tensors]
    for index, norm in enumerate(framework.norms):
        for node in free:
            stored = [
                onnx.numpy_helper.to_array(tensors[name]) for name in node.input[3:5] if name in tensors
            ]
            wanted = [each for each in (norm.mean, norm.variance) if each is not None]
            if len(stored) == len(wanted) == 2 and all(
                np.array_equal(want.astype(have.dtype), have)
                for want, have in zip(wanted, stored, strict=True)
            ):
                free.remove(node)
                yield Layer(norm.layer, index, node.output[0], 0.0)
                break


def _distance(call: Call, value: Array) -> float:
    """Largest difference over the largest magnitude, in whichever of the two usual layouts fits."""
    if value.size != call.value.size or value.dtype.kind not in "fV":
        return float("inf")
    return min((_error(call.value, seen) for seen in _layouts(value, call.value.shape)), default=float("inf"))


def _layouts(value: Array, shape: Sequence[int]) -> Iterator[Array]:
    if value.shape == tuple(shape):
        yield value
    if value.ndim > 2:
        for moved in (np.moveaxis(value, 1, -1), np.moveaxis(value, -1, 1)):
            if moved.shape == tuple(shape) and value.ndim == len(shape):
                yield moved


def _error(want: Array, got: Array) -> float:
    if not want.size:
        return float("inf")
    step = max(1, want.shape[-1] * (want.size // want.shape[-1] // PEEK))
    peek = np.abs(want.reshape(-1)[::step].astype(np.float64) - got.reshape(-1)[::step].astype(np.float64))
    scale = float(np.abs(want).max()) or 1.0
    if not (peek.max() <= NEAR * scale):
        return float("inf")
    return float(np.abs(want.astype(np.float64) - got.astype(np.float64)).max()) / scale


def _mark(graph: onnx.GraphProto, layers: dict[str, str]) -> None:
    for node in graph.node:
        for output in node.output:
            if output in layers:
                node.metadata_props.add(key=LAYER, value=layers[output])
