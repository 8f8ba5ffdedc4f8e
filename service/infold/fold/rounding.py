"""Rounding to a storage dtype, once and to nearest."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from infold.tensors import Array

__all__ = ["rounded"]


def rounded(array: Array, dtype: ir.DataType) -> Array:
    """The array in a storage dtype; from float64 to bfloat16 without rounding twice.

    Going through float32, as a plain cast does, may first round up to a tie and then
    the tie up once more. Rounding to odd in between keeps what decides.

    Source: Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums".
    """
    if dtype is not ir.DataType.BFLOAT16 or array.dtype != np.float64:
        return array.astype(dtype.numpy())
    with np.errstate(over="ignore"):
        nearest = array.astype(np.float32)
    towards_zero = np.where(np.abs(nearest) > np.abs(array), np.nextafter(nearest, np.float32(0)), nearest)
    bits = towards_zero.astype(np.float32).view(np.uint32)
    odd = np.where(towards_zero == array, bits, bits | 1).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(array), odd, nearest).astype(dtype.numpy())
