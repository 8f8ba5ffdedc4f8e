"""One loaded graph that runs tensors."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from infold.errors import DeviceError, NoKernelError, SessionError
from infold.runtime.bfloat16 import run_values, why_not
from infold.runtime.gpu_runs import GpuRuns, Left, opened_on_gpu, operators_by_provider
from infold.runtime.options import RunOptions, session_options
from infold.runtime.ort import onnxruntime
from infold.tensors import BFLOAT16, Array, Signature, Tensors, TensorSpec

__all__ = ["Session", "Stop", "nodes_left", "versions"]

DTYPES: dict[str, np.dtype[np.generic]] = {
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(uint16)": np.dtype(np.uint16),
    "tensor(uint32)": np.dtype(np.uint32),
    "tensor(uint64)": np.dtype(np.uint64),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(int16)": np.dtype(np.int16),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(bfloat16)": BFLOAT16,
    "tensor(string)": np.dtype(np.object_),
}

# How onnxruntime words it when an operator, type, opset or IR version is not implemented.
NO_KERNEL = re.compile(
    r"NOT_IMPLEMENTED|NotImplemented|No Op registered|not a registered|Unsupported model IR version"
    r"|Could not find an implementation|is under development|only \*guarantees\*|bfloat16",
    re.IGNORECASE,
)


def versions() -> dict[str, str]:
    """Versions of what runs the models, for reports."""
    return {"onnxruntime": str(onnxruntime().__version__), "numpy": np.__version__}


class Stop:
    """A switch that ends a run between two of its nodes.

    Args:
        is_large: The run takes unusually much memory, which is not kept for the next one.
    """

    def __init__(self, *, is_large: bool = False) -> None:
        self.is_large = is_large
        self.native = onnxruntime().RunOptions()

    def set(self) -> None:
        """End the run that was given this switch; it fails."""
        self.native.terminate = True


class Session:
    """A graph that onnxruntime has loaded; safe to run from several threads at once.

    Attributes:
        signature: Its inputs and outputs.
    """

    def __init__(
        self,
        path: Path,
        options: RunOptions | None = None,
        *,
        external_folder: Path | None = None,
        shown_as: Path | None = None,
    ) -> None:
        """Load the graph.

        Args:
            path: An ONNX file.
            options: How to run it; by default on the CPU with every optimization.
            external_folder: Where external data lies; by default beside the file.
            shown_as: The file to name in errors; by default the same.

        Raises:
            SessionError: onnxruntime refuses the file.
            DeviceError: It loads, but not on the device that was asked for.
            RuntimeMissingError: No onnxruntime is installed.
        """
        self.path = shown_as or path
        options = options or RunOptions()
        provider = options.placement.provider
        is_gpu = options.placement.device.is_gpu
        native = session_options(options)
        graph: str | bytes = str(path)
        if external_folder is not None:  # onnxruntime takes a folder only beside a graph in memory
            native.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(external_folder)
            )
            graph = path.read_bytes()
        try:
            if is_gpu:
                self._native = opened_on_gpu(graph, native, options)
            else:
                self._native = onnxruntime().InferenceSession(
                    graph,
                    native,
                    providers=[provider],
                    disabled_optimizers=list(options.disabled_optimizers) or None,
                )
        except Exception as failure:
            raise _translated(self.path, failure, path) from failure
        if self._native.get_providers()[:1] != [provider]:
            instead = ", ".join(self._native.get_providers())
            raise DeviceError(
                str(options.placement.device), f"onnxruntime loaded {path} on {instead} instead"
            )
        self.signature = Signature(
            tuple(_spec(path, value) for value in self._native.get_inputs()),
            tuple(_spec(path, value) for value in self._native.get_outputs()),
        )
        self._keeps_memory = options.keeps_memory and not is_gpu
        self._output_names = [spec.name for spec in self.signature.outputs]
        if detail := why_not(self.signature):
            raise NoKernelError(str(self.path), detail)
        self._halves = frozenset(spec.name for spec in self.signature.outputs if spec.dtype == BFLOAT16)
        self._has_bfloat16 = bool(self._halves) or any(
            spec.dtype == BFLOAT16 for spec in self.signature.inputs
        )
        self._on_gpu: GpuRuns | None = None
        if is_gpu:
            self._on_gpu = GpuRuns(self._native, self.signature, options, str(self.path))

    @property
    def provider(self) -> str:
        """Onnxruntime's name of the device it runs on."""
        return str(self._native.get_providers()[0])

    def run(
        self, tensors: Tensors, outputs: Sequence[str] | None = None, stop: Stop | None = None
    ) -> dict[str, Array]:
        """Run the graph.

        Args:
            tensors: All inputs, as the signature says.
            outputs: Names of the outputs wanted; None means all.
            stop: Ends the run early, from another thread.

        Returns:
            The outputs by name, in the order asked.

        Raises:
            SessionError: onnxruntime failed, or was stopped.
        """
        names = self._output_names if outputs is None else list(outputs)
        if stop is not None and stop.is_large and self._keeps_memory:
            stop.native.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        try:
            # Not through its Python wrapper, which checks again what the signature has.
            switch = None if stop is None else stop.native
            if self._on_gpu is not None:
                results = self._on_gpu.run(names, tensors, switch)
            elif self._has_bfloat16:
                results = run_values(self._native, names, tensors, switch, self._halves)
            else:
                results = self._native._sess.run(names, dict(tensors), switch)
        except Exception as failure:
            raise _translated(self.path, failure) from failure
        return dict(zip(names, results, strict=True))

    def end_profile(self) -> Path:
        """Stop profiling and return the file that was written."""
        return Path(self._native.end_profiling())


def nodes_left(path: Path, options: RunOptions, tensors: Tensors) -> Left:
    """Operator types of the nodes that a run on a GPU leaves to what comes after it, sorted.

    onnxruntime tells this only in a profile, so the graph is loaded and run once more for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = replace(options.cuda, cuda_graph=False)  # a recorded run has no nodes to tell of
        profiled = replace(options, cuda=plain, profile_prefix=str(Path(folder) / "profile"))
        session = Session(path, profiled)
        session.run(tensors)
        return Left.of(operators_by_provider(session.end_profile()), options.placement.provider)


def _spec(path: Path, value: Any) -> TensorSpec:
    if value.type not in DTYPES:
        raise NoKernelError(str(path), f"'{value.name}' is a {value.type}, which cannot be exchanged")
    shape = None if value.shape is None else tuple(value.shape)
    return TensorSpec(value.name, DTYPES[value.type], shape)


def _translated(path: Path, failure: Exception, loaded: Path | None = None) -> SessionError:
    """Our error for onnxruntime's, of a file that it may know by another path."""
    detail = " ".join(str(failure).split()) or type(failure).__name__
    if loaded is not None:
        detail = detail.replace(str(loaded), str(path))
    detail = re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", detail)[:500]
    if NO_KERNEL.search(detail) or type(failure).__name__ == "NotImplemented":
        return NoKernelError(str(path), detail)
    return SessionError(str(path), detail)
