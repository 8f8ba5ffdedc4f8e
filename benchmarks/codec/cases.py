"""What is decoded and encoded: infold's way and that of each library, on the same values.

A case holds functions without arguments. infold's are called once before anything is timed, and
what they give is held against the values.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
import orjson
import simdjson

from infold.rest.codec import DATATYPES, DTYPES
from infold.rest.connection import LONG_BYTES
from infold.rest.room import room_for
from infold.rest.v2 import InferRequest, decode_infer, encode_infer
from infold.tensors import Array, Signature, TensorSpec, kind_of

__all__ = [
    "DIRECTIONS",
    "FEWEST",
    "INFOLD",
    "LIST",
    "NESTED",
    "PICTURE",
    "Case",
    "Values",
    "body_of",
    "drawn",
]

INFOLD = "infold"
# How the numbers of a JSON body are written.
LIST, FEWEST, NESTED = "tolist()", "fewest digits", "nested"
PICTURE = (1, 3, 224, 224)
# simdjson's letters for the buffers it can fill.
CODES = {"f": "d", "i": "i", "u": "u"}
PYTHON_TYPES = {"f": float, "i": int, "u": int, "b": bool, "O": str}

Call = Callable[[], object]


@dataclass(frozen=True, eq=False)
class Values:
    """A tensor, and how a body writes it."""

    array: Array
    form: str = LIST

    @property
    def datatype(self) -> str:
        """The protocol's name of its type."""
        return DATATYPES[self.array.dtype]

    @property
    def signature(self) -> Signature:
        """Of a model that takes it."""
        shape = (None, *self.array.shape[1:])
        return Signature((TensorSpec("x", self.array.dtype, shape),), ())


@dataclass(frozen=True, eq=False)
class Case:
    """One row: how long the message is, and what is timed, infold first."""

    values: Values
    message_bytes: int
    calls: dict[str, Call]


def drawn(datatype: str, count: int, form: str = LIST) -> Values:
    """Values of a type, the same in every run; 3 x 224 x 224 of them are a picture."""
    random, dtype = np.random.default_rng(count), DTYPES[datatype]
    shape = PICTURE if count == int(np.prod(PICTURE)) else (count,)
    kind = kind_of(dtype)
    array: Array
    if kind == "O":
        array = np.array([f"word {each}" for each in random.integers(0, 10**6, count)], np.object_)
    elif kind == "b":
        array = random.integers(0, 2, count).astype(np.bool_)
    elif kind == "f":
        array = random.standard_normal(count).astype(dtype)
    else:
        limits = np.iinfo(dtype.name)
        array = random.integers(limits.min, limits.max, count, dtype.name, endpoint=True)
    return Values(array.reshape(shape), form)


def body_of(values: Values) -> bytes:
    """An infer request in JSON, as a client in Python writes it."""
    array = values.array
    head = {"name": "x", "shape": array.shape, "datatype": values.datatype}
    if values.form == FEWEST:
        flat = np.ascontiguousarray(array.reshape(-1))
        return orjson.dumps({"inputs": [head | {"data": flat}]}, option=orjson.OPT_SERIALIZE_NUMPY)
    listed = array.tolist() if values.form == NESTED else array.reshape(-1).tolist()
    return json.dumps({"inputs": [head | {"data": listed}]}).encode()


def from_json(values: Values) -> Case:
    """A request in JSON to its tensor; the libraries parse the same bytes to what they have for numbers."""
    body, signature, kind = body_of(values), values.signature, kind_of(values.array.dtype)
    ours = partial(decode_infer, _as_read(body, 0), None, signature)
    _check(ours().tensors["x"], values.array)
    parser = simdjson.Parser()
    element: Any = PYTHON_TYPES[kind]
    for _ in range(values.array.ndim if values.form == NESTED else 1):
        element = list[element]
    tensor = msgspec.defstruct("Tensor", [("data", element)])
    decoder = msgspec.json.Decoder(msgspec.defstruct("Request", [("inputs", list[tensor])]))  # type: ignore[valid-type]  # a type made here

    def numbers() -> object:
        found = parser.parse(body)["inputs"][0]["data"]
        return found.as_buffer(of_type=CODES[kind]) if kind in CODES else found.as_list()

    calls: dict[str, Call] = {
        INFOLD: ours,
        "simdjson": lambda: parser.parse(body),
        "simdjson, out": numbers,
        "orjson": partial(orjson.loads, body),
        "msgspec": partial(decoder.decode, body),
        "json": partial(json.loads, body),
    }
    return Case(values, len(body), calls)


def to_json(values: Values) -> Case:
    """A tensor to the JSON of an answer."""
    array = values.array
    ours = partial(_encoded, array, is_binary=False)
    (text,) = ours()
    found = json.loads(text)["outputs"][0]["data"]
    _check(np.array(found, array.dtype).reshape(array.shape), array)
    ready = array.astype(np.float32) if values.datatype == "BF16" else array
    flat = ready.reshape(-1)
    native = flat.tolist() if flat.dtype == np.object_ else flat
    calls: dict[str, Call] = {
        INFOLD: ours,
        "orjson": lambda: orjson.dumps(native, option=orjson.OPT_SERIALIZE_NUMPY),
        "msgspec": lambda: msgspec.json.encode(flat.tolist()),
        "json": lambda: json.dumps(flat.tolist()),
    }
    return Case(values, len(text), calls)


def from_bytes(values: Values) -> Case:
    """A request of the binary extension to its tensor."""
    array = values.array
    raw = bytes(_encoded(array, is_binary=True)[1])
    head = {"name": "x", "shape": array.shape, "datatype": values.datatype}
    text = json.dumps({"inputs": [head | {"parameters": {"binary_data_size": len(raw)}}]}).encode()
    body = _as_read(text + raw, len(text))
    ours = partial(decode_infer, body, len(text), values.signature)
    _check(ours().tensors["x"], array)
    calls: dict[str, Call] = {INFOLD: ours}
    if array.dtype != np.object_:
        calls["numpy"] = lambda: np.frombuffer(body, array.dtype, offset=len(text)).reshape(array.shape)
        calls["orjson + numpy"] = lambda: (
            orjson.loads(bytes(body[: len(text)])),
            np.frombuffer(body, array.dtype, offset=len(text)).reshape(array.shape),
        )
    return Case(values, len(body), calls)


def to_bytes(values: Values) -> Case:
    """A tensor to the parts of an answer in bytes."""
    array = values.array
    ours = partial(_encoded, array, is_binary=True)
    parts = ours()
    calls: dict[str, Call] = {INFOLD: ours}
    if array.dtype != np.object_:
        if bytes(parts[1]) != array.tobytes():
            raise AssertionError(f"{values.datatype}: the bytes differ")
        calls["numpy"] = array.tobytes
    return Case(values, sum(map(len, parts)), calls)


def _as_read(body: bytes, tensors_at: int) -> bytes | memoryview:
    """A body as the service has it when it is read: a long one lies in memory of its own."""
    if len(body) < LONG_BYTES:
        return body
    view = room_for(len(body), tensors_at)
    view[:] = body
    return view


def _encoded(array: Array, *, is_binary: bool) -> list[bytes | memoryview]:
    request = InferRequest({}, is_binary=is_binary)
    return encode_infer("m", 1, request, {"y": array}, _no_classes).parts


def _no_classes(name: str, array: Array, top: int) -> Array:
    raise AssertionError("nobody asks for classes")


def _check(found: Array, wanted: Array) -> None:
    if found.dtype != wanted.dtype or found.shape != wanted.shape or not np.array_equal(found, wanted):
        raise AssertionError(f"{DATATYPES[wanted.dtype]}, {wanted.size} values: what comes out differs")


# Each table's title, and what makes a row of it.
DIRECTIONS: dict[str, Callable[[Values], Case]] = {
    "From JSON": from_json,
    "To JSON": to_json,
    "From bytes": from_bytes,
    "To bytes": to_bytes,
}
