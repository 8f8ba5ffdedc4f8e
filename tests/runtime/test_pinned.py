"""Locked memory, from a stand-in for CUDA's runtime library."""

from __future__ import annotations

import ctypes
import gc
import logging
from typing import Any

import numpy as np
import pytest

from infold.runtime.pinned import pinned_memory


class Runtime:
    """Hands out memory of the process, and knows what is out."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.out: dict[int, Any] = {}
        self.cleared = self.gpu = 0

    def cudaSetDevice(self, gpu_id: int) -> int:
        self.gpu = gpu_id
        return 0

    def cudaHostAlloc(self, pointer: Any, size: ctypes.c_size_t, flags: int) -> int:
        assert flags == 1
        if self.code == 0:
            memory = ctypes.create_string_buffer(size.value)
            pointer._obj.value = ctypes.addressof(memory)
            self.out[pointer._obj.value] = memory
        return self.code

    def cudaFreeHost(self, pointer: ctypes.c_void_p) -> int:
        assert pointer.value is not None
        del self.out[pointer.value]
        return 0

    def cudaGetLastError(self) -> int:
        self.cleared += 1
        return 0


def test_memory_is_given_back_with_the_last_view_of_it() -> None:
    """Not before, not later, each once."""
    runtime = Runtime()
    take = pinned_memory(3, runtime)
    memory, other = take(24), take(8)
    assert runtime.gpu == 3 and memory.nbytes == 24 and len(runtime.out) == 2
    view = memory[:16].view(np.float32).reshape(2, 2)
    view[:] = 5
    address = memory.ctypes.data
    assert ctypes.string_at(address, 4) == np.float32(5).tobytes()
    del memory
    gc.collect()
    assert len(runtime.out) == 2
    del view, other
    gc.collect()
    assert runtime.out == {}


def test_without_memory_to_lock_plain_memory_will_do(caplog: pytest.LogCaptureFixture) -> None:
    """It is told, and the error does not stay behind for the next kernel to be blamed."""
    runtime = Runtime(code=2)
    with caplog.at_level(logging.WARNING):
        memory = pinned_memory(0, runtime)(16)
    assert memory.nbytes == 16 and memory.flags.writeable
    assert runtime.cleared == 1 and "memory not pinned" in caplog.text


def test_without_cuda_plain_memory_will_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The library is not there; it is told once, and not for each buffer."""
    monkeypatch.setattr("onnxruntime.cuda_version", "99.1", raising=False)
    with caplog.at_level(logging.WARNING):
        take = pinned_memory(0)
    assert "libcudart.so.99" in caplog.text if "reason" in caplog.text else "no pinned memory" in caplog.text
    assert take(4).nbytes == 4
