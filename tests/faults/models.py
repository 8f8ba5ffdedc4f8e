"""The models that are asked while things go wrong: what each version answers is known without it.

Version `v` of a model answers `x * v + (100 * v + column % 7)`, of whole numbers so small that FP32
holds every step exactly. No two versions agree on any input.
"""

from __future__ import annotations

import functools

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from graphs import model

__all__ = [
    "BROAD",
    "CONFIGS",
    "LINE",
    "MODELS",
    "PAIR",
    "WIDTHS",
    "Floats",
    "answer",
    "graph",
    "graph_beside",
]

Floats = NDArray[np.float32]

# `line` is answered on the event loop, `pair` is joined in a queue, and a row of `broad` is a long body.
LINE, PAIR, BROAD = "line", "pair", "broad"
WIDTHS = {LINE: 4, PAIR: 8, BROAD: 20_000}
MODELS = tuple(WIDTHS)
CONFIGS = {
    PAIR: """versions = "latest:2"
[batching]
join = "always"
max_rows = 8
capacity_rows = 32
[session]
inline = "never"
""",
}
MOST = 64  # whole numbers below this are asked about
WEIGHTS = "weights.bin"


@functools.cache
def shift(width: int, version: int) -> Floats:
    """What a version adds."""
    return (100 * version + np.arange(width) % 7).astype(np.float32)


def answer(version: int, x: Floats) -> Floats:
    """What a version must answer, bit for bit."""
    found = x * np.float32(version) + shift(x.shape[-1], version)
    return np.asarray(found, np.float32)


def graph(name: str, version: int) -> onnx.ModelProto:
    """A version of a model."""
    width = WIDTHS[name]
    return model(
        f"{name} (float[n, {width}] x) => (float[n, {width}] y) {{ p = Mul (x, a)  y = Add (p, b) }}",
        {"a": np.array([version], np.float32), "b": shift(width, version)},
    )


def graph_beside(name: str, version: int, location: str, length: int) -> onnx.ModelProto:
    """A version whose `b` lies in a file of its own.

    Args:
        name: Of the model.
        version: Its number.
        location: Of the file, as the graph gives it.
        length: Bytes of it that the graph asks for.
    """
    proto = graph(name, version)
    (tensor,) = [each for each in proto.graph.initializer if each.name == "b"]
    array = numpy_helper.to_array(tensor)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    assert array.nbytes
    return proto
