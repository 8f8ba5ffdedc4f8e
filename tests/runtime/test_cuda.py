"""What onnxruntime's GPU providers are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infold.runtime.cuda import CudaOptions, cuda_provider, tensorrt_provider, why_no_graph
from infold.runtime.gpu_runs import Left
from infold.runtime.options import CPU, CUDA, TENSORRT
from infold.tensors import BFLOAT16, Dim, Signature, TensorSpec


def signature(shape: tuple[Dim, ...] | None, dtype: object = np.float32) -> Signature:
    """One input and one output."""
    given = np.dtype(dtype)  # type: ignore[call-overload]
    return Signature((TensorSpec("x", given, shape),), (TensorSpec("y", given, shape),))


def test_rounding_as_tf32_must_be_asked_for() -> None:
    """Onnxruntime's own default is to round; so it is told every time."""
    assert cuda_provider(CudaOptions())["use_tf32"] == "0"
    assert cuda_provider(CudaOptions(tf32=True))["use_tf32"] == "1"


def test_kernels_are_chosen_without_trying_all_and_on_one_stream() -> None:
    """What a server wants and no default gives."""
    told = cuda_provider(CudaOptions(gpu_id=3))
    assert told["device_id"] == "3"
    assert told["cudnn_conv_algo_search"] == "HEURISTIC"
    assert told["use_ep_level_unified_stream"] == told["do_copy_in_default_stream"] == "1"
    assert not {"gpu_mem_limit", "enable_cuda_graph"} & set(told)


def test_a_limit_and_a_graph_are_told_where_they_are_wished() -> None:
    """In bytes."""
    told = cuda_provider(CudaOptions(memory_bytes=5 * 2**30, cuda_graph=True))
    assert (told["gpu_mem_limit"], told["enable_cuda_graph"]) == ("5368709120", "1")
    assert tensorrt_provider(CudaOptions(memory_bytes=7), {})["trt_max_workspace_size"] == "7"


def test_tensorrt_keeps_its_engines_where_there_is_a_place() -> None:
    """Engines and timings; and computes in float32 unless that is allowed to change."""
    told = tensorrt_provider(CudaOptions(gpu_id=1, engines=Path("/cache/k/tensorrt")), {})
    assert told["trt_engine_cache_enable"] == told["trt_timing_cache_enable"] == "1"
    assert told["trt_engine_cache_path"] == told["trt_timing_cache_path"] == "/cache/k/tensorrt"
    assert (told["device_id"], told["trt_fp16_enable"]) == ("1", "0")
    assert tensorrt_provider(CudaOptions(tensorrt_fp16=True), {}) == {
        "device_id": "0",
        "trt_fp16_enable": "1",
    }


def test_tensorrt_is_told_the_range_of_rows() -> None:
    """For all inputs whose rows are open; a fixed one needs none."""
    inputs = {"x": ("N", 3, 8), "n": ("N",), "fixed": (4, 4)}
    told = tensorrt_provider(CudaOptions(most_rows=16), inputs)
    assert told["trt_profile_min_shapes"] == "x:1x3x8,n:1"
    assert told["trt_profile_opt_shapes"] == told["trt_profile_max_shapes"] == "x:16x3x8,n:16"


@pytest.mark.parametrize(
    ("rows", "inputs"),
    [
        (1, {"x": ("N", 3)}),
        (8, {"x": (2, 3)}),
        (8, {}),
        (8, {"x": ("N", "length")}),
        (8, {"x": ("N", 3), "y": None}),
        (8, {"x": ("N", 3), "y": (2, None)}),
        (8, {"a:b": ("N", 3)}),
    ],
)
def test_a_range_is_told_for_every_open_input_or_for_none(
    rows: int, inputs: dict[str, tuple[Dim, ...] | None]
) -> None:
    """TensorRT refuses half of it, and then finds ranges by itself."""
    told = tensorrt_provider(CudaOptions(most_rows=rows), inputs)
    assert not any("profile" in key for key in told)


def test_only_fixed_numbers_can_be_recorded() -> None:
    """The first tensor that stands against it is named."""
    assert why_no_graph(signature((2, 3))) is None
    assert why_no_graph(signature(())) is None
    assert why_no_graph(signature(("N", 3))) == (
        "input 'x' has shape [-1, 3]; a CUDA graph needs every length fixed"
    )
    assert "shape open" in (why_no_graph(signature(None)) or "")
    assert "strings" in (why_no_graph(signature((2,), np.object_)) or "")
    assert "bfloat16" in (why_no_graph(signature((2,), BFLOAT16)) or "")
    outputs = Signature(signature((2,)).inputs, signature(("N",)).outputs)
    assert (why_no_graph(outputs) or "").startswith("output 'y'")


def test_what_is_left_is_told_by_who_takes_it() -> None:
    """On CUDA nothing is left to CUDA."""
    ran = {TENSORRT: {"TRTKernel"}, CUDA: {"Resize", "Conv"}, CPU: {"Shape"}}
    assert Left.of(ran, TENSORRT) == Left(("Shape",), ("Conv", "Resize"))
    assert Left.of(ran, CUDA) == Left(("Shape",))
    assert Left.of({CUDA: {"Conv"}}, CUDA) == Left()
