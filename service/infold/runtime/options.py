"""How a session runs: which device, how many threads, how much optimization.

Thread counts come from what this process may use (cgroup quota and affinity),
never from the host's cores: in a container those differ.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from infold.errors import DeviceError
from infold.runtime.ort import ERROR, FATAL, onnxruntime

__all__ = [
    "Device",
    "Placement",
    "RunOptions",
    "available_cores",
    "cgroup_folders",
    "choose_device",
    "session_options",
]

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


class Device(StrEnum):
    """What a user may ask for."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Placement:
    """The device that was taken, and why.

    Attributes:
        device: CPU or CUDA, never AUTO.
        why: One clause for the start-up line.
    """

    device: Device
    why: str

    @property
    def provider(self) -> str:
        """Onnxruntime's name of it."""
        return CUDA if self.device is Device.CUDA else CPU


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How one session runs.

    Attributes:
        placement: The device.
        optimize: False switches every graph optimization off, for proofs.
        intra_op_threads: Threads inside one run; 0 means all cores that may be used.
        disabled_optimizers: Graph optimizers of onnxruntime to leave out, by name.
        profile_prefix: Where a profile of the runs goes; None writes none.
        keeps_memory: False gives memory back after each run, for shapes that vary.
        write_to: Where the optimized graph is written; None writes none.
        weights_name: File beside it for the weights.
    """

    placement: Placement = field(default=Placement(Device.CPU, "asked for"))
    optimize: bool = True
    intra_op_threads: int = 0
    disabled_optimizers: tuple[str, ...] = ()
    profile_prefix: str | None = None
    keeps_memory: bool = True
    write_to: Path | None = None
    weights_name: str = ""


def available_cores(root: Path = Path("/")) -> int:
    """Cores this process may use: the smaller of its affinity and its cgroup's CPU quota.

    Args:
        root: Where `sys/fs/cgroup` and `proc` lie; another place in tests.

    Returns:
        At least 1; a quota of 1.5 cores counts as 2.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _cgroup_quota(root)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def _cgroup_quota(root: Path) -> float | None:
    """CPU quota in cores, from cgroup v2 or v1, or None where there is none."""
    cgroup = root / "sys/fs/cgroup"
    found = []
    for folder in cgroup_folders(root):
        words = _words(folder / "cpu.max")
        if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:
            found.append(int(words[0]) / int(words[1]))
    for folder in (cgroup / "cpu", cgroup / "cpu,cpuacct"):
        quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
        if quota and period and int(quota[0]) > 0 and int(period[0]) > 0:
            found.append(int(quota[0]) / int(period[0]))
    return min(found, default=None)


def cgroup_folders(root: Path) -> list[Path]:
    """This process's own cgroup (v2) and all above it: any of them may hold the tightest limit."""
    own = next((w for w in _words(root / "proc/self/cgroup") if w.startswith("0::")), "0::/")
    parts = [part for part in own.removeprefix("0::").split("/") if part and part != ".."]
    return [(root / "sys/fs/cgroup").joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def choose_device(asked: Device) -> Placement:
    """Settle what runs the models, and say why; never take another device silently.

    Raises:
        DeviceError: CUDA was asked for and is not to be had; says what is missing.
    """
    if asked is Device.CPU:
        return Placement(Device.CPU, "asked for")
    problem = _cuda_problem()
    if problem is None:
        why = "asked for" if asked is Device.CUDA else "CUDA works here"
        return Placement(Device.CUDA, why)
    if asked is Device.CUDA:
        raise DeviceError("cuda", problem)
    return Placement(Device.CPU, f"CUDA does not work here: {problem}")


def _cuda_problem() -> str | None:
    """Why CUDA cannot be used, with the remedy, or None where a tiny graph runs on it."""
    ort = onnxruntime()
    if CUDA not in ort.get_available_providers():
        return (
            "the installed onnxruntime is the CPU build; "
            "pip uninstall -y onnxruntime && pip install 'infold[gpu]'"
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds the CUDA and cuDNN wheels of the `gpu` extra
    ort.set_default_logger_severity(ERROR)  # here its own lines name the missing library
    try:
        session = ort.InferenceSession(_IDENTITY, providers=[CUDA])
    except Exception as failure:
        return _first_line(failure)
    finally:
        ort.set_default_logger_severity(FATAL)
    if session.get_providers()[:1] != [CUDA]:
        return (
            "onnxruntime could not load its CUDA provider (driver, CUDA or cuDNN libraries missing, "
            "or no GPU visible); see the lines above, and `nvidia-smi`"
        )
    return None


# IR 8, opset 17, `y = Identity(x)` on float[1]: the smallest graph there is, as bytes, because
# this floor must not import onnx.
_IDENTITY = (
    b'\x08\x08:9\n\x12\n\x01x\x12\x01y"\x08Identity:\x00\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n'
    b"\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)


def _first_line(failure: BaseException) -> str:
    return str(failure).strip().splitlines()[0][:300] if str(failure).strip() else type(failure).__name__


def session_options(options: RunOptions) -> Any:
    """Onnxruntime's own SessionOptions for ours."""
    ort = onnxruntime()
    native = ort.SessionOptions()
    level = ort.GraphOptimizationLevel
    native.graph_optimization_level = level.ORT_ENABLE_ALL if options.optimize else level.ORT_DISABLE_ALL
    native.intra_op_num_threads = options.intra_op_threads or available_cores()
    native.inter_op_num_threads = 1
    # Threads may spin while a run lasts, which keeps latency low, but not between runs.
    native.add_session_config_entry("session.force_spinning_stop", "1")
    native.log_severity_level = FATAL
    native.enable_cpu_mem_arena = native.enable_mem_pattern = options.keeps_memory
    if options.write_to is not None:
        native.optimized_model_filepath = str(options.write_to)
        for key, value in (("file_name", options.weights_name), ("min_size_in_bytes", "1024")):
            native.add_session_config_entry(f"session.optimized_model_external_initializers_{key}", value)
    if options.profile_prefix is not None:
        native.enable_profiling = True
        native.profile_file_prefix = options.profile_prefix
    return native
