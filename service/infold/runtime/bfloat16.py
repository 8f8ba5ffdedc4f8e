"""Runs of models with bfloat16 at their borders, which onnxruntime does not exchange as numpy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from infold.runtime.ort import onnxruntime
from infold.tensors import BFLOAT16, Array, Tensors

__all__ = ["run_values"]

ONNX_BFLOAT16 = 16  # TensorProto.DataType


def run_values(native: Any, outputs: Sequence[str], tensors: Tensors, options: Any) -> list[Array]:
    """Outputs of an onnxruntime session, in the order asked.

    Args:
        native: The session.
        outputs: Names.
        tensors: All inputs.
        options: onnxruntime's options of this run, or None.
    """
    values = {name: _value(array) for name, array in tensors.items()}
    return [_array(value) for value in native.run_with_ort_values(outputs, values, options)]


def _value(array: Array) -> Any:
    kind = onnxruntime().OrtValue
    if array.dtype != BFLOAT16:
        return kind.ortvalue_from_numpy(array)
    # It keeps a reference to the array, which it reads in place.
    return kind.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array).view(np.uint16), ONNX_BFLOAT16)


def _array(value: Any) -> Array:
    if value.element_type() != ONNX_BFLOAT16:
        array: Array = value.numpy()
        return array
    shape = value.shape()
    count = int(np.prod(shape))
    if not count:
        return np.empty(shape, BFLOAT16)
    pairs = (ctypes.c_uint16 * count).from_address(value.data_ptr())
    return np.array(pairs, np.uint16).view(BFLOAT16).reshape(shape)  # a copy: the value goes
