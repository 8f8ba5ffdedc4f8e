"""The plainest infer requests, read in one go: one input, a flat list of numbers or their bytes.

That is what most small requests are. Whatever is not plain, or is wrong, is left
to the careful reader in `v2`, which knows every form and names every mistake.
"""

from __future__ import annotations

import math
import struct
import sys
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from infold.rest.codec import DATATYPES, MAX_RANK
from infold.rest.infer_request import MAX_ID_BYTES, InferRequest
from infold.rest.parameters import OutputParameters
from infold.tensors import Array, Signature, TensorSpec

__all__ = ["read_plain", "read_plain_bytes"]

IS_LITTLE = sys.byteorder == "little"


class _Input(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    parameters: None = None


class _Floats(_Input, gc=False):
    data: list[float] = []


class _Integers(_Input, gc=False):
    data: list[int] = []


class _Wanted(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    binary_data: bool | None = None


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: _Wanted | None = None


class _Request(msgspec.Struct, gc=False):
    """Anything but null for what is None here is refused, and so left to the careful reader."""

    id: str | None = None
    outputs: list[_Output] | None = None
    parameters: None = None


class _Size(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    binary_data_size: int


class _Bytes(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    parameters: _Size
    data: msgspec.Raw = msgspec.Raw(b"")


class _Wish(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    binary_data_output: bool = False


class _OfBytes(msgspec.Struct, gc=False):
    inputs: list[_Bytes]
    id: str | None = None
    outputs: list[_Output] | None = None
    parameters: _Wish | None = None


class _OfFloats(_Request, gc=False):
    inputs: list[_Floats] = []


class _OfIntegers(_Request, gc=False):
    inputs: list[_Integers] = []


_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "f": msgspec.json.Decoder(_OfFloats),
    "i": msgspec.json.Decoder(_OfIntegers),
    "u": msgspec.json.Decoder(_OfIntegers),
}


WISHES = {wish: OutputParameters(wish) for wish in (None, False, True)}

_headers = msgspec.json.Decoder(_OfBytes)
# Before bytes that come again and again stands the same text each time; longer ones are read anew.
LONGEST_KEPT = 1024


@lru_cache(maxsize=256)
def _kept(header: bytes) -> _OfBytes:
    request: _OfBytes = _headers.decode(header)
    return request


def read_plain_bytes(header: bytes, tensor: memoryview, signature: Signature) -> InferRequest | None:
    """As `read_plain`, of a request whose only input is the bytes behind its JSON header."""
    if len(signature.inputs) != 1:
        return None
    (spec,) = signature.inputs
    if spec.dtype.kind not in "fiu" or not IS_LITTLE:
        return None
    try:
        request = _kept(header) if len(header) <= LONGEST_KEPT else _headers.decode(header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if len(request.inputs) != 1:
        return None
    given = request.inputs[0]
    if given.name != spec.name or given.datatype != DATATYPES[spec.dtype] or bytes(given.data):
        return None
    size = len(tensor)
    if size != given.parameters.binary_data_size or not _takes(given.shape, size, spec.dtype.itemsize):
        return None
    array = np.frombuffer(tensor, spec.dtype).reshape(given.shape)
    if not array.flags.aligned:
        array = array.copy()
    if spec.mismatch(array):
        return None
    is_binary = request.parameters is not None and request.parameters.binary_data_output
    return _plain(array, spec, request.id, request.outputs, signature, is_binary=is_binary)


def read_plain(body: bytes, signature: Signature) -> InferRequest | None:
    """A plain request; None for any other."""
    if len(signature.inputs) != 1:
        return None
    (spec,) = signature.inputs
    decoder = _DECODERS.get(spec.dtype.kind)
    if decoder is None:
        return None
    try:
        request = decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    inputs = request.inputs
    if len(inputs) != 1:
        return None
    given = inputs[0]
    if given.name != spec.name or given.datatype != DATATYPES[spec.dtype]:
        return None
    array = _array(given.data, spec)
    if array is None or not _takes(given.shape, array.size):
        return None
    array = array.reshape(given.shape)
    if spec.mismatch(array):
        return None
    return _plain(array, spec, request.id, request.outputs, signature)


def _plain(
    array: Array,
    spec: TensorSpec,
    own_id: str | None,
    outputs: list[_Output] | None,
    signature: Signature,
    *,
    is_binary: bool = False,
) -> InferRequest | None:
    """The request, if its id is short and every output that it wants is the model's and wanted once."""
    if own_id is not None and len(own_id) * 4 > MAX_ID_BYTES:
        return None
    request = InferRequest({spec.name: array}, id=own_id, is_binary=is_binary)
    if outputs:
        wishes = {
            each.name: WISHES[each.parameters.binary_data if each.parameters else None] for each in outputs
        }
        if len(wishes) != len(outputs) or not all(map(signature.output, wishes)):
            return None
        request.outputs, request.wishes = tuple(wishes), wishes
    return request


def _takes(shape: list[int], size: int, item: int = 1) -> bool:
    """A shape is plain and of that size; not so where it is empty, for then an axis may have any length."""
    if not size or len(shape) > MAX_RANK or min(shape, default=1) <= 0:
        return False
    return math.prod(shape) * item == size


def _array(data: list[float] | list[int], spec: TensorSpec) -> Array | None:
    """The numbers in the model's type; None if one of them may not fit."""
    try:
        if spec.dtype == np.float32 and IS_LITTLE:  # packed, since numpy takes longer to begin
            return np.frombuffer(struct.pack(f"<{len(data)}f", *data), np.float32)
        if spec.dtype.kind == "f":
            with np.errstate(over="ignore"):
                floats: Any = np.array(data, spec.dtype)
                # A number too large has become infinite; then so is the sum of squares, and seldom else.
                return floats if math.isfinite(np.dot(floats, floats)) else None
        wide = np.array(data, np.uint64 if spec.dtype.kind == "u" else np.int64)
    except (OverflowError, ValueError):
        return None
    if wide.dtype == spec.dtype:
        return wide
    limits = np.iinfo(spec.dtype.name)
    if wide.size and not (limits.min <= int(wide.min()) and int(wide.max()) <= limits.max):
        return None
    return wide.astype(spec.dtype)
