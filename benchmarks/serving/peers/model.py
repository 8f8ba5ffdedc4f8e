"""The model as every peer's app uses it; where it lies is in the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

PORT = int(os.environ.get("BENCH_PORT", "0"))
WORKERS = int(os.environ.get("BENCH_WORKERS", "1"))
BODY = os.environ.get("BENCH_BODY", "json")  # or binary, jpeg: some peers settle it at the start
BATCH = int(os.environ.get("BENCH_BATCH", "1"))


class Model:
    """One session."""

    def __init__(self, intra_threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = intra_threads  # 0 leaves it to onnxruntime: all cores
        self._session = onnxruntime.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        (taken,) = self._session.get_inputs()
        self.shape: tuple[int, ...] = tuple(taken.shape[1:])

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output for a batch."""
        y: NDArray[np.float32] = self._session.run(["y"], {"x": x})[0]
        return y

    def of_bytes(self, content: bytes) -> NDArray[np.float32]:
        """A batch from float32 values and nothing else."""
        return np.frombuffer(content, np.float32).reshape(-1, *self.shape)

    def of_picture(self, content: bytes) -> NDArray[np.float32]:
        """A batch from a JPEG."""
        from picture import tensor_of  # here, so that Pillow is no part of the memory where nobody needs it

        return tensor_of(content)

    def of_numbers(self, numbers: Sequence[float]) -> NDArray[np.float32]:
        """A batch from one flat list."""
        return np.array(numbers, np.float32).reshape(-1, *self.shape)
