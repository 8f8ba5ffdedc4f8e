"""What NVIDIA's driver says of this machine, asked in its own words before onnxruntime tries."""

from __future__ import annotations

import ctypes
from typing import Any

from infold.runtime.gpu_libraries import DRIVER

__all__ = ["driver_problem"]


def driver_problem(gpu_id: int, built_for: str = "", driver: Any = None) -> str | None:
    """Why the driver offers no such GPU, in one clause, or None.

    Args:
        gpu_id: Number of the GPU.
        built_for: CUDA's version that onnxruntime was built with, as `13.0`; empty if that is not known.
        driver: The driver's library; None loads it.
    """
    if driver is None:
        try:
            driver = ctypes.CDLL(DRIVER)
        except OSError as missing:
            return (
                f"{missing}: the NVIDIA driver is not installed, or this container was started without it "
                "(docker run --gpus all)"
            )
    if code := driver.cuInit(0):
        hint = "; is CUDA_VISIBLE_DEVICES empty?" if _name(driver, code) == "CUDA_ERROR_NO_DEVICE" else ""
        return f"the NVIDIA driver says {_words(driver, code)}{hint}"
    version, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    major, minor = version.value // 1000, version.value % 1000 // 10
    wanted = built_for.partition(".")[0]
    if wanted.isdigit() and major < int(wanted):
        return (
            f"the NVIDIA driver goes up to CUDA {major}.{minor}, and this onnxruntime is built for CUDA "
            f"{built_for}: a newer driver is needed"
        )
    if code := driver.cuDeviceGetCount(ctypes.byref(count)):
        return f"the NVIDIA driver says {_words(driver, code)}"
    if gpu_id >= count.value:
        shown = f"{count.value} GPU{'s' * (count.value != 1)}, numbered from 0"
        return f"there is no GPU {gpu_id}: the driver shows {shown} (INFOLD_GPU_ID, CUDA_VISIBLE_DEVICES)"
    return None


def _words(driver: Any, code: int) -> str:
    return f"{_name(driver, code)}: {_text(driver.cuGetErrorString, code)}"


def _name(driver: Any, code: int) -> str:
    return _text(driver.cuGetErrorName, code)


def _text(call: Any, code: int) -> str:
    text = ctypes.c_char_p()
    call(code, ctypes.byref(text))
    return text.value.decode("ascii", errors="replace") if text.value else f"error {code}"
