"""What is missing for a GPU is named, one thing at a time, in the words of whoever misses it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from infold.errors import DeviceError
from infold.runtime import Device, choose_device, gpu_check, gpu_libraries
from infold.runtime.elf import needed_libraries
from infold.runtime.gpu_check import CUDA, IDENTITY, TENSORRT, why_not_on
from infold.runtime.gpu_driver import driver_problem
from infold.runtime.gpu_libraries import missing_library

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads ELF files")
MISSING = "libcublasLt.so.99: cannot open shared object file: No such file or directory"


class Driver:
    """In the place of `libcuda.so.1`."""

    NAMES: ClassVar = {
        100: (b"CUDA_ERROR_NO_DEVICE", b"no CUDA-capable device is detected"),
        3: (b"THREE", b"third"),
    }

    def __init__(self, *, init: int = 0, version: int = 13000, count: int = 2, counting: int = 0) -> None:
        self.init, self.version, self.count, self.counting = init, version, count, counting

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self.init

    def cuDriverGetVersion(self, out: Any) -> int:
        out._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, out: Any) -> int:
        out._obj.value = self.count
        return self.counting

    def cuGetErrorName(self, code: int, out: Any) -> int:
        out._obj.value = self.NAMES.get(code, (None, None))[0]
        return 0

    def cuGetErrorString(self, code: int, out: Any) -> int:
        out._obj.value = self.NAMES.get(code, (None, None))[1]
        return 0


@pytest.mark.parametrize(
    ("driver", "gpu_id", "built_for", "words"),
    [
        (
            Driver(init=100),
            0,
            "13.0",
            "CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected; is CUDA_VIS",
        ),
        (Driver(init=3), 0, "", "the NVIDIA driver says THREE: third"),
        (Driver(init=77), 0, "", "the NVIDIA driver says error 77: error 77"),
        (
            Driver(version=12040),
            0,
            "13.0",
            "goes up to CUDA 12.4, and this onnxruntime is built for CUDA 13.0",
        ),
        (Driver(counting=3), 0, "13.0", "the NVIDIA driver says THREE: third"),
        (Driver(count=0), 0, "13.0", "there is no GPU 0: the driver shows 0 GPUs"),
        (
            Driver(count=1),
            1,
            "13.0",
            "there is no GPU 1: the driver shows 1 GPU, numbered from 0 (INFOLD_GPU",
        ),
    ],
)
def test_what_the_driver_has_against_it_is_told(
    driver: Driver, gpu_id: int, built_for: str, words: str
) -> None:
    """In its own words, with what to do."""
    assert words in (driver_problem(gpu_id, built_for, driver) or "")


def test_a_driver_that_has_the_gpu_is_fine() -> None:
    """One for a newer CUDA, too, and where it is not known what is wanted."""
    for driver, built_for in ((Driver(), "13.0"), (Driver(version=14010), "13.0"), (Driver(version=1), "")):
        assert driver_problem(1, built_for, driver) is None


def test_a_driver_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, and the two usual reasons."""

    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    problem = driver_problem(0)
    assert problem is not None and problem.startswith("libcuda.so.1: cannot open shared object file")
    assert "driver is not installed" in problem and "--gpus all" in problem


@LINUX
def test_what_a_library_needs_is_read_from_its_file() -> None:
    """As the loader's own list has it: onnxruntime's binding needs the C library."""
    import onnxruntime

    folder = Path(onnxruntime.__file__).parent / "capi"
    (binding,) = folder.glob("onnxruntime_pybind11_state*.so")
    needed = needed_libraries(binding)
    assert any(name.startswith("libc.so") for name in needed)
    assert all(".so" in name for name in needed)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x7fELF", b"no library at all, but long enough for a head", b"\x7fELF\x02\x01" + bytes(80)],
)
def test_what_is_no_library_is_a_value_error_or_needs_nothing(tmp_path: Path, content: bytes) -> None:
    """Never anything else; cut anywhere, too."""
    path = tmp_path / "lib.so"
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        assert needed_libraries(path) == ()


@LINUX
def test_a_library_cut_anywhere_is_a_value_error_or_needs_less(tmp_path: Path) -> None:
    """A half download is no crash."""
    import onnxruntime

    (binding,) = (Path(onnxruntime.__file__).parent / "capi").glob("onnxruntime_pybind11_state*.so")
    whole, path = binding.read_bytes()[:4096], tmp_path / "cut.so"
    for length in range(0, 1200, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="ELF"):
            needed_libraries(path)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has been looked at."""
    monkeypatch.setattr(gpu_libraries, "_loaded", {})


@pytest.mark.usefixtures("fresh")
def test_the_first_missing_library_is_named_and_looked_for_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the loader's words; what is found is not looked for twice, and the driver is another's matter."""
    there = {"libfirst.so.1", "libcudnn.so.9"}
    asked: list[str] = []

    def load(name: str) -> None:
        asked.append(name)
        if name not in there:
            raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    needs = ("libfirst.so.1", "libcuda.so.1", "libonnxruntime_providers_shared.so", "libsecond.so.2")
    monkeypatch.setattr(gpu_libraries, "needed_libraries", lambda _: needs)
    for _ in range(2):
        assert missing_library(tmp_path) == "libsecond.so.2: cannot open shared object file"
    assert "libcuda.so.1" not in asked
    there.add("libsecond.so.2")
    assert missing_library(tmp_path) is None
    asked.clear()
    assert missing_library(tmp_path) is None and asked == []


@pytest.mark.usefixtures("fresh")
def test_cudnn_is_missed_at_the_start_and_not_at_the_first_convolution(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Onnxruntime opens it late, and no list of its libraries has it."""
    monkeypatch.setattr(gpu_libraries, "needed_libraries", lambda _: ())
    monkeypatch.setattr(gpu_libraries, "WHEELS", ())
    monkeypatch.setattr(gpu_libraries, "CUDNN", "libcudnn.so.99")
    assert (missing_library(tmp_path) or "").startswith("libcudnn.so.99: cannot open")


@pytest.mark.usefixtures("fresh")
def test_libraries_are_found_in_wheels_and_a_broken_one_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where NVIDIA's wheels put them, which no loader knows."""
    folder = tmp_path / "nvidia_test" / "cu13" / "lib"
    folder.mkdir(parents=True)
    (folder / "libbroken.so.1").write_bytes(b"half")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(gpu_libraries, "WHEELS", ("nvidia_test",))
    monkeypatch.setattr(gpu_libraries, "needed_libraries", lambda _: ("libbroken.so.1",))
    problem = missing_library(tmp_path)
    assert problem is not None and str(folder / "libbroken.so.1") in problem
    assert "cannot open" not in problem  # it is there: that it is damaged is the news


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Onnxruntime as the GPU wheel has it, with provider libraries that need nothing."""
    monkeypatch.setattr(
        "onnxruntime.get_available_providers", lambda: [TENSORRT, CUDA, "CPUExecutionProvider"]
    )
    monkeypatch.setattr(gpu_check, "provider_file", Path)
    monkeypatch.setattr(gpu_check, "missing_library", lambda path: None)
    monkeypatch.setattr(gpu_check, "driver_problem", lambda gpu_id, built_for: None)


@pytest.mark.usefixtures("gpu_build")
def test_the_missing_library_is_the_error_of_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line: which, and what brings it."""
    monkeypatch.setattr(gpu_check, "missing_library", lambda path: MISSING)
    with pytest.raises(DeviceError) as caught:
        choose_device(Device.CUDA)
    assert str(caught.value) == (
        f"device cuda: {MISSING}; pip install 'infold[gpu]' brings the CUDA and cuDNN libraries"
    )
    assert MISSING in choose_device(Device.AUTO).why


@pytest.mark.usefixtures("gpu_build")
def test_tensorrt_needs_cuda_first_then_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its provider needs both."""
    lacks = {"libonnxruntime_providers_tensorrt.so": "libnvinfer.so.10: cannot open"}
    monkeypatch.setattr(gpu_check, "missing_library", lambda path: lacks.get(path.name))
    assert (why_not_on(TENSORRT) or "").startswith("libnvinfer.so.10: cannot open; TensorRT is no part of")
    monkeypatch.setattr(gpu_check, "driver_problem", lambda gpu_id, built_for: f"no GPU {gpu_id}")
    assert why_not_on(TENSORRT, 5) == "no GPU 5"


@pytest.mark.usefixtures("gpu_build")
@pytest.mark.parametrize("device", [Device.CUDA, Device.TENSORRT])
def test_what_works_is_taken_with_its_number_and_limit(
    monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    """Onnxruntime has the last word, asked for that GPU, and must not fall back."""
    asked: list[Any] = []

    class Works:
        def __init__(self, graph: bytes, **more: Any) -> None:
            asked.append((graph, more))

        def get_providers(self) -> list[str]:
            return [asked[-1][1]["providers"][0][0]]

    monkeypatch.setattr("onnxruntime.InferenceSession", Works)
    placement = choose_device(device, 2, 7)
    assert (placement.device, placement.gpu_id, placement.gpu_memory_bytes) == (device, 2, 7)
    assert placement.device.is_gpu and placement.why == "asked for"
    ((graph, more),) = asked
    assert graph == IDENTITY and more["enable_fallback"] is False
    ((provider, told),) = more["providers"]
    assert (provider, told["device_id"]) == (placement.provider, "2")


def test_a_start_without_the_gpu_build_says_so_in_one_line() -> None:
    """The CPU build is what tests run on."""
    code = "from infold.runtime import Device, choose_device; choose_device(Device.TENSORRT)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert "device tensorrt: the installed onnxruntime is the CPU build" in done.stderr
    assert done.stdout == ""
