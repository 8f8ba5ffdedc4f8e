"""bfloat16, which neither onnxruntime's Python interface nor numpy's files know.

Tensors go into a session and out of it as pairs of bytes in onnxruntime's own
values; those of other types go with them as usual.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from infold.runtime.ort import onnxruntime
from infold.tensors import BFLOAT16, Array, Signature, Tensors

__all__ = ["restored", "run_values", "why_not"]

ONNX_BFLOAT16 = 16  # TensorProto.DataType
# What bfloat16 has become in a file of numpy's.
NAMELESS = np.dtype("V2")


def why_not(signature: Signature) -> str | None:
    """Why a model with these inputs and outputs cannot be run from Python, or None.

    Outputs of bfloat16 are only had as onnxruntime's values, and those it makes of no strings.
    """
    strings = [spec.name for spec in signature.inputs if spec.dtype == np.object_]
    halves = [spec.name for spec in signature.outputs if spec.dtype == BFLOAT16]
    if not strings or not halves:
        return None
    return (
        f"input '{strings[0]}' takes strings and output '{halves[0]}' is bfloat16, "
        "which onnxruntime's Python interface does not exchange in one run"
    )


def run_values(
    native: Any, outputs: Sequence[str], tensors: Tensors, options: Any, halves: frozenset[str]
) -> list[Array]:
    """Outputs of an onnxruntime session, in the order asked.

    Args:
        native: The session.
        outputs: Names.
        tensors: All inputs.
        options: onnxruntime's options of this run, or None.
        halves: Names of all outputs of bfloat16.
    """
    values = {name: _value(array) if array.dtype == BFLOAT16 else array for name, array in tensors.items()}
    if halves.isdisjoint(outputs):
        found: list[Array] = native._sess.run(outputs, values, options)
        return found
    kind = onnxruntime().OrtValue
    for name, array in tensors.items():
        if array.dtype != BFLOAT16:
            values[name] = kind.ortvalue_from_numpy(np.asarray(array, order="C"))
    return [_array(value, tensors) for value in native.run_with_ort_values(outputs, values, options)]


def _value(array: Array) -> Any:
    """As onnxruntime's value, which reads the array in place and keeps it alive."""
    pairs = np.asarray(array, order="C").view(np.uint16)
    return onnxruntime().OrtValue.ortvalue_from_numpy_with_onnx_type(pairs, ONNX_BFLOAT16)


def _array(value: Any, inputs: Tensors) -> Array:
    if value.element_type() != ONNX_BFLOAT16:
        array: Array = value.numpy()
        # An input that is an output too comes back in its own memory, which goes with the request.
        return array.copy() if any(np.may_share_memory(array, each) for each in inputs.values()) else array
    shape = value.shape()
    pairs = (ctypes.c_uint16 * math.prod(shape)).from_address(value.data_ptr())
    return np.array(pairs, np.uint16).view(BFLOAT16).reshape(shape)  # a copy: the value goes


def restored(array: Array) -> Array:
    """What was read from a file of numpy's, which keeps bfloat16 as pairs of bytes without a name."""
    return array.view(BFLOAT16) if array.dtype == NAMELESS else array
