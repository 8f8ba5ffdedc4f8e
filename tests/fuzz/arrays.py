"""Arrays of every datatype of the protocol, and how each is written as bytes and as JSON."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

__all__ = [
    "DTYPES",
    "Array",
    "arrays",
    "as_bytes",
    "as_list",
    "from_bytes",
    "from_json",
    "is_same",
    "is_speakable",
    "speakable",
]

Array = NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(bool),
    **{
        f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits}")
        for kind in ("UINT", "INT")
        for bits in (8, 16, 32, 64)
    },
    "FP16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype("float32"),
    "FP64": np.dtype("float64"),
    "BYTES": np.dtype(object),
}


def arrays(datatype: str, shape: Sequence[int]) -> st.SearchStrategy[Array]:
    """Arrays of a shape, from any bits there are: NaN, infinities, extremes."""
    count = math.prod(shape)
    if datatype == "BYTES":
        texts = st.lists(st.text(max_size=6), min_size=count, max_size=count)
        return texts.map(lambda values: _strings(values, shape))
    dtype = DTYPES[datatype]
    size = count * dtype.itemsize
    if datatype == "BOOL":
        bits = st.lists(st.booleans(), min_size=count, max_size=count)
        return bits.map(lambda values: np.array(values, bool).reshape(shape))
    return st.binary(min_size=size, max_size=size).map(lambda raw: np.frombuffer(raw, dtype).reshape(shape))


def _strings(values: Sequence[str], shape: Sequence[int]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


def as_bytes(array: Array) -> bytes:
    """The tensor as the binary extension sends it."""
    if array.dtype == object:
        texts = [text.encode() for text in array.reshape(-1)]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return array.tobytes()


def is_float(dtype: np.dtype[Any]) -> bool:
    """NaN and infinities are of that type."""
    return dtype.kind == "f" or dtype == DTYPES["BF16"]


def as_list(array: Array) -> Any:
    """The tensor as JSON says it: nested lists."""
    return array.astype(np.float64).tolist() if is_float(array.dtype) else array.tolist()


def is_speakable(array: Array) -> bool:
    """JSON has a word for every element."""
    return bool(_has_word(array).all())


def speakable(array: Array) -> Array:
    """The array without what JSON has no word for."""
    return np.where(_has_word(array), array, array.dtype.type(0)) if is_float(array.dtype) else array


def _has_word(array: Array) -> Array:
    if not is_float(array.dtype):
        return np.ones(array.shape, bool)
    with np.errstate(invalid="ignore"):  # ml_dtypes warns of some NaNs
        return np.isfinite(array)


def from_bytes(raw: bytes, datatype: str, shape: Sequence[int]) -> Array:
    """The tensor that the binary extension sent."""
    if datatype != "BYTES":
        return np.frombuffer(raw, DTYPES[datatype]).reshape(shape)
    texts, start = [], 0
    while start < len(raw):
        (length,) = struct.unpack_from("<I", raw, start)
        texts.append(raw[start + 4 : start + 4 + length].decode())
        start += 4 + length
    return _strings(texts, shape)


def from_json(values: Sequence[Any], datatype: str, shape: Sequence[int]) -> Array:
    """The tensor that was written as JSON; null is what JSON has no number for."""
    if datatype == "BYTES":
        return _strings(values, shape)
    dtype = DTYPES[datatype]
    if not is_float(dtype):
        return np.array(values, dtype).reshape(shape)
    return np.array([np.nan if value is None else value for value in values]).astype(dtype).reshape(shape)


def is_same(got: Array, wanted: Array) -> bool:
    """The same type, shape and values; a NaN stands for whatever is no finite number."""
    if got.dtype != wanted.dtype or got.shape != wanted.shape:
        return False
    if not is_float(wanted.dtype):
        return np.array_equal(got, wanted)
    with np.errstate(invalid="ignore"):
        is_null = np.isnan(got) & ~np.isfinite(wanted)
        return bool(((got == wanted) | is_null).all())
