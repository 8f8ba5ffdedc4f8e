"""Tensors as bytes: views of a request's body on the way in, views of an output on the way out.

Little endian, row-major, BOOL one byte, a string its length in four bytes and then its own.

Source: Triton's binary tensor data extension (docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

from infold.errors import InvalidInputError
from infold.rest.codec import DATATYPES
from infold.tensors import Array, TensorSpec

__all__ = ["blob", "open_shape", "parted_strings", "read_blob"]

LENGTH = struct.Struct("<I")
IS_BOOL = np.dtype(np.bool_)


def read_blob(data: memoryview, dtype: np.dtype[np.generic], shape: Sequence[int], place: str) -> Array:
    """A tensor from its bytes, without a copy where the bytes are laid out for it.

    Args:
        data: Exactly the tensor.
        dtype: object for strings.
        shape: Full.
        place: What to call it in an error.

    Raises:
        InvalidInputError: Too many bytes or too few, or a BOOL that is neither 0 nor 1.
    """
    if dtype == np.object_:
        return _read_strings(data, shape, place)
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        detail = f"{len(data)} bytes given, shape {list(shape)} of {DATATYPES[dtype]} takes {wanted}"
        raise InvalidInputError(place, detail)
    array = np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)
    if dtype == IS_BOOL and (array.view(np.uint8) > 1).any():
        raise InvalidInputError(place, "a BOOL is a byte of 0 or 1")
    # onnxruntime wants native order and alignment; `require` copies only where it must.
    return np.require(array, dtype, ("C", "A"))


def parted_strings(data: memoryview, count: int, place: str) -> list[bytes]:
    """Strings of bytes from theirs, each with its length in front.

    Raises:
        InvalidInputError: Too many bytes or too few.
    """
    strings, start, whole, length_at = [], 0, bytes(data), LENGTH.unpack_from
    for index in range(count):
        if start + LENGTH.size > len(whole):
            raise InvalidInputError(f"{place}[{index}]", "the bytes end before this string")
        (length,) = length_at(whole, start)
        start += LENGTH.size
        text = whole[start : start + length]
        if len(text) < length:
            raise InvalidInputError(f"{place}[{index}]", "the bytes end before this string does")
        start += length
        strings.append(text)
    if start != len(data):
        raise InvalidInputError(place, f"{len(data) - start} bytes are left after {count} strings")
    return strings


def _read_strings(data: memoryview, shape: Sequence[int], place: str) -> Array:
    array = np.empty(math.prod(shape), np.object_)
    for index, text in enumerate(parted_strings(data, len(array), place)):
        try:
            array[index] = text.decode()
        except UnicodeDecodeError:
            raise InvalidInputError(f"{place}[{index}]", "is no UTF-8, which is what models take") from None
    return array.reshape(shape)


def open_shape(spec: TensorSpec, size: int) -> list[int]:
    """The shape of an input that is all a request holds.

    One open length follows from the size. Where the batch axis and another one are
    open, there is one row.

    Raises:
        InvalidInputError: More lengths are open, or the size is no multiple of what is fixed.
    """
    shape = list(spec.shape or ())
    if spec.shape is None:
        raise InvalidInputError("body", f"input '{spec.name}' has no fixed rank; send its shape in a header")
    if spec.dtype == np.object_:
        if any(isinstance(dim, int) and dim != 1 for dim in shape):
            raise InvalidInputError("body", f"input '{spec.name}' takes several strings; send a header")
        return [1] * len(shape)
    free = [axis for axis, dim in enumerate(shape) if not isinstance(dim, int)]
    if len(free) > 1 and free[0] == 0:
        shape[0], free = 1, free[1:]
    if len(free) > 1:
        raise InvalidInputError(
            "body", f"input '{spec.name}' takes {spec.wire_shape()}: several lengths are open; send a header"
        )
    fixed = math.prod(dim for dim in shape if isinstance(dim, int)) * spec.dtype.itemsize
    if free:
        if fixed == 0 or size % fixed:
            detail = f"{size} bytes are no multiple of {fixed}, what shape {spec.wire_shape()} takes a row"
            raise InvalidInputError("body", detail)
        shape[free[0]] = size // fixed
    return [int(dim) for dim in shape if isinstance(dim, int)]


def blob(array: Array) -> memoryview | bytes:
    """The bytes of a tensor; a view where it is laid out row by row already."""
    if array.dtype == np.object_:
        texts = [each if isinstance(each, bytes) else str(each).encode() for each in array.reshape(-1)]
        return b"".join(LENGTH.pack(len(text)) + text for text in texts)
    if not array.size:
        return b""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data
