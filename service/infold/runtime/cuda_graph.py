"""Runs that are recorded once as a CUDA graph and replayed: one launch in place of one for each kernel.

What onnxruntime asks for: every length fixed, inputs and outputs at the same addresses on the GPU each
time, and always the same thread, because it keeps a graph for each thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from infold.runtime.gate import GPU
from infold.runtime.ort import onnxruntime
from infold.tensors import Array, Signature, Tensors

__all__ = ["GraphRuns"]


class GraphRuns:
    """Runs of one session, one after another on a thread of their own.

    A run cannot be ended between two nodes: a replayed graph has none.

    Args:
        native: onnxruntime's session, with `enable_cuda_graph` where it is on CUDA.
        signature: Its inputs and outputs; see `cuda.why_no_graph`.
        device: onnxruntime's word for where the tensors lie: `cuda`.
        gpu_id: Number of the GPU.
    """

    def __init__(self, native: Any, signature: Signature, device: str, gpu_id: int) -> None:
        value = onnxruntime().OrtValue
        self._native = native
        self._is_recorded = False
        self._inputs, self._outputs = (
            {
                spec.name: value.ortvalue_from_shape_and_type(
                    list(spec.shape or ()), spec.dtype.type, device, gpu_id
                )
                for spec in specs
            }
            for specs in (signature.inputs, signature.outputs)
        )
        self._binding = native.io_binding()
        for name, each in self._inputs.items():
            self._binding.bind_ortvalue_input(name, each)
        for name, each in self._outputs.items():
            self._binding.bind_ortvalue_output(name, each)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="infold-cuda-graph")

    def run(self, names: Sequence[str], tensors: Tensors) -> list[Array]:
        """Outputs in the order asked, in memory of their own.

        Args:
            names: Of the outputs.
            tensors: All inputs, as the signature says.
        """
        return self._thread.submit(self._ran, names, tensors).result()

    def _ran(self, names: Sequence[str], tensors: Tensors) -> list[Array]:
        with self._passage():
            for name, value in self._inputs.items():
                value.update_inplace(np.asarray(tensors[name], order="C"))
            self._native.run_with_iobinding(self._binding)
            self._is_recorded = True
            return [_copied(self._outputs[name]) for name in names]

    def _passage(self) -> AbstractContextManager[None]:
        """The first run records, which nobody may disturb."""
        return GPU.shared() if self._is_recorded else GPU.alone()


def _copied(value: Any) -> Array:
    """What is in it now; from a GPU that is a copy anyhow."""
    array: Array = value.numpy()
    return array.copy() if array.ctypes.data == value.data_ptr() else array
