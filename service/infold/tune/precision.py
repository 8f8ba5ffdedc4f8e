"""Which types a model's weights are stored in, read from its graph; their data is not looked at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

__all__ = ["is_coarse", "stored_types"]

SHORT = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "double": "fp64"}
FINE = ("fp32", "fp64", "int32", "int64", "none")
# Biases and scales beside the weights of a quantized model do not count.
LEAST_SHARE = 0.1


def stored_types(path: Path) -> str:
    """Types that a tenth of all stored numbers or more have, the most frequent first, as `int8+fp32`."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (OSError, DecodeError):  # onnxruntime reads forms that onnx does not
        return "unknown"
    counts: Counter[str] = Counter()
    for tensor in (*_of_graph(model.graph), *_of_nodes(n for f in model.functions for n in f.node)):
        name = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        counts[SHORT.get(name, name)] += math.prod(tensor.dims)
    total = counts.total()
    return (
        "+".join(name for name, count in counts.most_common() if count >= LEAST_SHARE * total > 0) or "none"
    )


def is_coarse(types: str) -> bool:
    """Some of the stored types have steps that show in an answer."""
    return any(name not in FINE for name in types.split("+"))


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from (sparse.values for sparse in graph.sparse_initializer)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Constants, in bodies too."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _of_graph(body)
