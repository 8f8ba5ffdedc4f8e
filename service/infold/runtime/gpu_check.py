"""Why a GPU cannot be used here, in one line that names what is missing; asked at start and by the doctor."""

from __future__ import annotations

from typing import Any

from infold.runtime.gpu_driver import driver_problem
from infold.runtime.gpu_libraries import CUDA_LIBRARY, TENSORRT_LIBRARY, missing_library, provider_file
from infold.runtime.ort import ERROR, FATAL, onnxruntime

__all__ = ["CUDA", "IDENTITY", "TENSORRT", "why_not_on"]

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
LIBRARIES = {CUDA: (CUDA_LIBRARY,), TENSORRT: (CUDA_LIBRARY, TENSORRT_LIBRARY)}
SHOWN = {CUDA: "CUDA", TENSORRT: "TensorRT"}

# IR 8, opset 17, `y = Identity(x)` on float[1]: the smallest graph there is, as bytes, because
# this floor must not import onnx.
IDENTITY = (
    b'\x08\x08:9\n\x12\n\x01x\x12\x01y"\x08Identity:\x00\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n'
    b"\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)


def why_not_on(provider: str, gpu_id: int = 0) -> str | None:
    """Why a provider cannot be used, with the remedy, or None where a tiny graph loads on it.

    Args:
        provider: onnxruntime's name of CUDA or TensorRT.
        gpu_id: Number of the GPU.
    """
    ort = onnxruntime()
    if provider not in ort.get_available_providers():
        return (
            "the installed onnxruntime is the CPU build; "
            "pip uninstall -y onnxruntime && pip install 'infold[gpu]'"
        )
    for name in LIBRARIES[provider]:
        library = provider_file(name)
        if library is not None and (missing := missing_library(library)):
            return f"{missing}; {_remedy(name)}"
        if library is not None and name == CUDA_LIBRARY:
            built_for = str(getattr(ort, "cuda_version", None) or "")
            if problem := driver_problem(gpu_id, built_for):
                return problem
    return _refused(ort, provider, gpu_id)


def _remedy(library: str) -> str:
    if library == TENSORRT_LIBRARY:
        return "TensorRT is no part of infold[gpu]: install the version that this onnxruntime names"
    return "pip install 'infold[gpu]' brings the CUDA and cuDNN libraries"


def _refused(ort: Any, provider: str, gpu_id: int) -> str | None:
    """What onnxruntime itself says against it."""
    told = {"device_id": str(gpu_id)}
    if provider == TENSORRT:
        told["trt_min_subgraph_size"] = "1000"  # no engine is built for this
    ort.set_default_logger_severity(ERROR)  # here its own lines name what is wrong
    try:
        session = ort.InferenceSession(IDENTITY, providers=[(provider, told)], enable_fallback=False)
    except Exception as failure:
        return _first_line(failure)
    finally:
        ort.set_default_logger_severity(FATAL)
    if session.get_providers()[:1] != [provider]:
        return (
            f"onnxruntime could not load its {SHOWN[provider]} provider (driver, CUDA or cuDNN libraries "
            "missing, or no GPU visible); see the lines above, and `nvidia-smi`"
        )
    return None


def _first_line(failure: BaseException) -> str:
    return str(failure).strip().splitlines()[0][:300] if str(failure).strip() else type(failure).__name__
