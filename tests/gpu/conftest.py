"""What only a GPU can show. Where a body makes sense on the CPU it runs there, too, to be known to work."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from infold.errors import DeviceError
from infold.runtime import Device, Placement, choose_device
from infold.runtime.gpu_check import TENSORRT, why_not_on

CPU = Placement(Device.CPU, "asked for")


@cache
def found() -> Placement | str:
    """CUDA, or why there is none."""
    try:
        return choose_device(Device.CUDA)
    except DeviceError as missing:
        return str(missing)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a GPU, what needs one is skipped with what is missing; `make gpu-test` fails then."""
    mine = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in mine:
        if item.get_closest_marker("gpu") is not None and isinstance(why := found(), str):
            if os.environ.get("GPU_TESTS") == "required":
                raise pytest.UsageError(why)
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(params=[pytest.param("cpu"), pytest.param("cuda", marks=pytest.mark.gpu)])
def placement(request: pytest.FixtureRequest) -> Placement:
    """The CPU, and a GPU where there is one."""
    return CPU if request.param == "cpu" else cuda_placement()


@pytest.fixture
def cuda() -> Placement:
    """A GPU."""
    return cuda_placement()


def cuda_placement() -> Placement:
    placement = found()
    assert isinstance(placement, Placement), placement
    return placement


@pytest.fixture
def tensorrt() -> Placement:
    """A GPU with TensorRT, which not every one has installed."""
    if why := why_not_on(TENSORRT):
        pytest.skip(why)
    return choose_device(Device.TENSORRT)


@pytest.fixture
def free_bytes(cuda: Placement) -> Any:
    """Gives what is free of the GPU's memory, whoever uses it."""
    import onnxruntime

    cudart = ctypes.CDLL(f"libcudart.so.{onnxruntime.cuda_version.partition('.')[0]}")

    def free() -> int:
        left, all_ = ctypes.c_size_t(), ctypes.c_size_t()
        assert cudart.cudaSetDevice(cuda.gpu_id) == 0
        assert cudart.cudaMemGetInfo(ctypes.byref(left), ctypes.byref(all_)) == 0
        return left.value

    return free
