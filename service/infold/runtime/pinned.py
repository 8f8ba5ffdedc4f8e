"""Host memory that a GPU reads and writes by itself: locked pages, from CUDA's own allocator.

The driver knows such memory by its address, so onnxruntime is given it as plain memory of the CPU, and
its copies to and from the GPU need no detour.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infold.runtime.ort import onnxruntime

__all__ = ["Take", "pinned_memory", "plain_memory"]

log = logging.getLogger(__name__)

Take = Callable[[int], NDArray[np.uint8]]  # so many bytes, at least one
PORTABLE = 1  # locked for every GPU of the process


def plain_memory(size: int) -> NDArray[np.uint8]:
    """So many bytes of plain memory."""
    return np.empty(size, np.uint8)


def pinned_memory(gpu_id: int, cudart: Any = None) -> Take:
    """An allocator of locked memory; of plain memory where there is none to be had.

    Args:
        gpu_id: The GPU in whose context it is asked for, so that no other GPU gets one.
        cudart: CUDA's runtime library; None takes the one that onnxruntime uses.
    """
    if cudart is None:
        major = str(getattr(onnxruntime(), "cuda_version", None) or "").partition(".")[0]
        try:
            cudart = ctypes.CDLL(f"libcudart.so.{major}")  # loaded already, wherever it lies
        except OSError as missing:
            log.warning("no pinned memory", extra={"reason": str(missing)})
            return plain_memory

    def take(size: int) -> NDArray[np.uint8]:
        pointer = ctypes.c_void_p()
        code = cudart.cudaSetDevice(gpu_id) or cudart.cudaHostAlloc(
            ctypes.byref(pointer), ctypes.c_size_t(size), PORTABLE
        )
        if code or not pointer.value:
            cudart.cudaGetLastError()  # or the next kernel of this thread would be blamed for it
            log.warning("memory not pinned", extra={"bytes": size, "code": code})
            return plain_memory(size)
        memory = (ctypes.c_ubyte * size).from_address(pointer.value)
        # At the end of the process the driver frees it, and may be gone before we are.
        weakref.finalize(memory, cudart.cudaFreeHost, pointer).atexit = False
        return np.ctypeslib.as_array(memory)  # keeps `memory`, and so do all its views

    return take
