"""Tiny models for the tests with real clients: one thing each, written as ONNX text.

`SAMPLES` has an array of every datatype of the protocol with its extremes, so
that whatever is rounded, wrapped or cut on the way is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray

from graphs import model

Array = NDArray[np.generic]

# ONNX' names of the protocol's datatypes that a numpy array can have.
NUMBERS = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float", "FP64": "double",
}  # fmt: skip
ONNX_TYPES = {**NUMBERS, "BYTES": "string", "BF16": "bfloat16"}
NUMPY_TYPES = {
    **{name: np.dtype(name.lower()) for name in NUMBERS if not name.startswith("FP")},
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


def sample(datatype: str) -> Array:
    """One row of three: the least and the largest of a datatype, and 1."""
    kind = NUMPY_TYPES[datatype]
    if datatype == "BYTES":
        return np.array([[b"", "zwölf".encode(), b"a\x00b"]], np.object_)
    if datatype == "BOOL":
        return np.array([[False, True, True]])
    limits = np.iinfo(kind) if kind.kind in "iu" else ml_dtypes.finfo(kind)
    return np.array([[limits.min, limits.max, 1]], kind)


def echo(datatype: str) -> str:
    """A model that gives back a matrix of that datatype."""
    kind = ONNX_TYPES[datatype]
    return f"echo ({kind}[rows, columns] x) => ({kind}[rows, columns] y) {{ y = Identity(x) }}"


# What every server of these tests has.
COMMON = {
    **{f"echo_{datatype.lower()}": echo(datatype) for datatype in (*NUMBERS, "BYTES")},
    # Two inputs, two outputs.
    "add_sub": """add_sub (float[rows, 4] a, float[rows, 4] b)
        => (float[rows, 4] sum, float[rows, 4] difference) { sum = Add(a, b)  difference = Sub(a, b) }""",
    # Two types at once.
    "pair": """pair (float[rows, 2] a, int64[rows, 2] b) => (float[rows, 2] total, int64[rows, 2] same)
        { f = Cast<to = 1>(b)  total = Add(a, f)  same = Identity(b) }""",
    # No batch axis.
    "table": "table (float[2, 3] x) => (float[2, 3] y) { y = Neg(x) }",
    # An open axis behind a fixed one.
    "peaks": "peaks (float[rows, 2, width] x) => (float[rows, width] y)"
    " { y = ReduceMax<axes = [1], keepdims = 0>(x) }",
    # An input whose values can be wrong though its shape is right.
    "lookup": """lookup (int64[rows] index) => (float[rows] value)
        <float[3] table = {10, 20, 30}> { value = Gather(table, index) }""",
    # Every score is told as it came.
    "scores": "scores (float[rows, 4] x) => (float[rows, 4] scores) { scores = Identity(x) }",
    # For statistics: nobody else asks it.
    "counted": "counted (float[rows, 2] x) => (float[rows, 2] y) { y = Add(x, x) }",
}
# Two versions that compute different things.
TIMES = {
    1: "times (float[rows, 4] x) => (float[rows, 4] y) <float two = {2}> { y = Mul(x, two) }",
    2: "times (float[rows, 4] x) => (float[rows, 4] y) <float three = {3}> { y = Mul(x, three) }",
}
# What the classes of `scores` may be called.
LABELS = ("cat", "dog", "hen", "owl")
# Loops as often as it is told.
SLOW = """slow (int64[1] n) => (float total)
    <bool yes = {1}, float zero = {0}, int64[0] none = {}>
    { count = Squeeze(n)
      total = Loop(count, yes, zero)
        <body = body (int64 i, bool go, float sum) => (bool again, float next)
          <float one = {1}> { again = Identity(go)  next = Add(sum, one) }> }"""


def write(root: Path, name: str, text: str, version: int = 1, files: Mapping[str, str] | None = None) -> None:
    """One version is in the repository, and beside its model's versions the files of those names.

    Args:
        root: The repository.
        name: Of the model.
        text: Its graph.
        version: Its number.
        files: Texts by name.
    """
    folder = root / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model(text), str(folder / "model.onnx"))
    for file, content in (files or {}).items():
        (root / name / file).write_text(content)


def write_all(root: Path, texts: Mapping[str, str] = COMMON) -> Path:
    """Every model is there with one version, and `times` with two that are both served."""
    for name, text in texts.items():
        write(root, name, text)
    write_times(root, "")
    return root


def write_times(root: Path, more: str) -> None:
    """`times` is there with both versions; `more` is the rest of its `model.toml`."""
    for version, text in TIMES.items():
        write(root, "times", text, version, {"model.toml": f'versions = "all"\n{more}'})
