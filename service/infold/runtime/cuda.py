"""What onnxruntime's CUDA and TensorRT providers are told: pure functions of a frozen value.

Names and meanings of the options are onnxruntime's own; why each is set stands here, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infold.tensors import Dim, Signature

__all__ = ["CudaOptions", "cuda_provider", "tensorrt_provider", "why_no_graph"]

Shapes = Mapping[str, tuple[Dim, ...] | None]


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """How one session runs on a GPU; nothing of it matters on the CPU.

    Attributes:
        gpu_id: Number of the GPU among those that the driver shows.
        memory_bytes: Most that the session's arena may take; 0 sets no limit.
        tf32: Matrix products of float32 may round their factors to 10 bits of mantissa.
        cuda_graph: Runs are recorded once and replayed; all lengths must be fixed.
        tensorrt_fp16: TensorRT may compute in float16.
        most_rows: Of one run; TensorRT builds its engine for 1 to so many. 1 leaves that to it.
        engines: Where TensorRT keeps what it builds; None keeps nothing.
    """

    gpu_id: int = 0
    memory_bytes: int = 0
    tf32: bool = False
    cuda_graph: bool = False
    tensorrt_fp16: bool = False
    most_rows: int = 1
    engines: Path | None = None


def cuda_provider(options: CudaOptions) -> dict[str, str]:
    """Options of onnxruntime's CUDA provider."""
    told = {
        "device_id": str(options.gpu_id),
        # Benchmarking every algorithm (the default) at each new shape takes seconds in the middle of traffic.
        "cudnn_conv_algo_search": "HEURISTIC",
        # One stream a session: copies, kernels and the end of a run are in one order.
        "use_ep_level_unified_stream": "1",
        "do_copy_in_default_stream": "1",
        # Several models share a GPU: what one does not need is not taken, as doubling would.
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": _flag(options.tf32),
    }
    if options.memory_bytes:
        told["gpu_mem_limit"] = str(options.memory_bytes)
    if options.cuda_graph:
        told["enable_cuda_graph"] = "1"
    return told


def tensorrt_provider(options: CudaOptions, inputs: Shapes) -> dict[str, str]:
    """Options of onnxruntime's TensorRT provider.

    Args:
        options: Those of the session.
        inputs: Shapes of the model's inputs by name, as far as a range of rows is to be told.
    """
    told = {"device_id": str(options.gpu_id), "trt_fp16_enable": _flag(options.tensorrt_fp16)}
    if options.memory_bytes:
        told["trt_max_workspace_size"] = str(options.memory_bytes)
    if options.engines is not None:
        told["trt_engine_cache_enable"] = told["trt_timing_cache_enable"] = "1"
        told["trt_engine_cache_path"] = told["trt_timing_cache_path"] = str(options.engines)
    return told | _profile(inputs, options.most_rows)


def why_no_graph(signature: Signature) -> str | None:
    """Why runs of a model cannot be recorded as a CUDA graph, as far as its signature tells, or None."""
    for role, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            if spec.dtype.kind == "O":
                return f"{role} '{spec.name}' takes strings, which stay on the CPU"
            if spec.dtype.name == "bfloat16":
                return f"{role} '{spec.name}' is bfloat16, which is not bound to fixed memory here"
            if spec.shape is None or not all(isinstance(dim, int) for dim in spec.shape):
                shown = "open" if spec.shape is None else spec.wire_shape()
                return f"{role} '{spec.name}' has shape {shown}; a CUDA graph needs every length fixed"
    return None


def _profile(inputs: Shapes, most_rows: int) -> dict[str, str]:
    """The range of rows that an engine is built for, so that none is built again between two requests.

    TensorRT wants it for every input with an open length or for none.
    """
    opened = {name: shape for name, shape in inputs.items() if not _is_fixed(shape)}
    if most_rows == 1 or not all(_has_open_rows(name, shape) for name, shape in opened.items()):
        return {}
    sizes = {"min": 1, "opt": most_rows, "max": most_rows}
    return {
        f"trt_profile_{kind}_shapes": ",".join(
            f"{name}:{'x'.join(str(dim) for dim in (rows, *(shape or ())[1:]))}"
            for name, shape in opened.items()
        )
        for kind, rows in sizes.items()
        if opened
    }


def _is_fixed(shape: tuple[Dim, ...] | None) -> bool:
    return shape is not None and all(isinstance(dim, int) for dim in shape)


def _has_open_rows(name: str, shape: tuple[Dim, ...] | None) -> bool:
    """Its first axis is open, and no other; its name does not confuse TensorRT's list."""
    return not set(name) & set(":,") and bool(shape) and _is_fixed((shape or ())[1:])


def _flag(value: bool) -> str:
    return "1" if value else "0"
