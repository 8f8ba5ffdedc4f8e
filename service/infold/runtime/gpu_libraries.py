"""The libraries that onnxruntime's GPU providers need: found in the wheels that bring them, or named.

onnxruntime itself says which one is missing only in its native log. So what a provider asks for is read
from its file, and each library is loaded by us: those of NVIDIA's wheels lie where no loader looks.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

from infold.runtime.elf import needed_libraries
from infold.runtime.ort import onnxruntime

__all__ = ["CUDA_LIBRARY", "DRIVER", "TENSORRT_LIBRARY", "load_libraries", "missing_library", "provider_file"]

CUDA_LIBRARY, TENSORRT_LIBRARY = "libonnxruntime_providers_cuda.so", "libonnxruntime_providers_tensorrt.so"
DRIVER = "libcuda.so.1"
# onnxruntime opens this one when the first convolution comes; which is what folded networks are made of.
CUDNN = "libcudnn.so.9"
# Opened by others as they need them, each by this start of its name.
OPTIONAL = ("libnvrtc.so.", "libcufft.so.")
WHEELS = ("nvidia", "tensorrt_libs")

_loaded: dict[str, str | None] = {}
_one_at_a_time = threading.Lock()


def provider_file(name: str) -> Path | None:
    """Where a provider of the installed onnxruntime lies; None where it has none of that name."""
    file = onnxruntime().__file__
    path = Path(file).parent / "capi" / name if file else Path(name)
    return path if path.is_file() else None


def missing_library(provider: Path) -> str | None:
    """What the loader says of the first library that a provider needs and cannot have, or None.

    The driver's own library is left out: see `gpu_driver`. What is found is loaded, and stays so.

    Args:
        provider: One of onnxruntime's.
    """
    with _one_at_a_time:
        if _loaded.get(str(provider), "not looked at") is None:
            return None
        problem = _missing(provider)
        _loaded[str(provider)] = problem
        return problem


def load_libraries(*names: str) -> None:
    """What these providers need is loaded as far as it is there; what is missing is said elsewhere."""
    for name in names:
        if (provider := provider_file(name)) is not None:
            missing_library(provider)


def _missing(provider: Path) -> str | None:
    try:
        needed = needed_libraries(provider)
    except (OSError, ValueError) as failure:
        return str(failure)
    for name in (*needed, CUDNN):
        if name != DRIVER and not name.startswith("libonnxruntime") and (problem := _problem(name)):
            return problem
    for name in _optional():
        _problem(name)
    return None


def _problem(name: str) -> str | None:
    """Why a library cannot be loaded, by itself or from a wheel; None where it is loaded now."""
    first = ""
    for place in (name, *map(str, _in_wheels(name))):
        try:
            ctypes.CDLL(place)
            return None
        except OSError as failure:
            # One that is found and does not load tells more than one that is not found.
            first = str(failure) if not first or place != name else first
    return first


def _in_wheels(pattern: str) -> Iterator[Path]:
    """Files of that name in NVIDIA's wheels, wherever those are installed."""
    for wheel in WHEELS:
        spec = importlib.util.find_spec(wheel)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            yield from sorted(Path(folder).glob(pattern))
            yield from sorted(Path(folder).glob(f"*/lib/{pattern}"))


def _optional() -> list[str]:
    return [path.name for start in OPTIONAL for path in _in_wheels(f"{start}*")]
