"""How a session runs: which device, how many threads, how much optimization.

Thread counts come from what this process may use (cgroup quota and affinity),
never from the host's cores: in a container those differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from infold.errors import DeviceError
from infold.runtime.cores import cores_of_process
from infold.runtime.cuda import CudaOptions
from infold.runtime.gpu_check import CUDA, TENSORRT, why_not_on
from infold.runtime.ort import FATAL, onnxruntime

__all__ = [
    "Device",
    "Placement",
    "RunOptions",
    "available_cores",
    "choose_device",
    "session_options",
]

CPU = "CPUExecutionProvider"


class Device(StrEnum):
    """What a user may ask for."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    AUTO = "auto"

    @property
    def is_gpu(self) -> bool:
        """It needs a GPU."""
        return self in (Device.CUDA, Device.TENSORRT)


PROVIDERS = {Device.CPU: CPU, Device.CUDA: CUDA, Device.TENSORRT: TENSORRT}


@dataclass(frozen=True, slots=True)
class Placement:
    """The device that was taken, and why.

    Attributes:
        device: CPU, CUDA or TensorRT, never AUTO.
        why: One clause for the start-up line.
        gpu_id: Number of the GPU, where it is one.
        gpu_memory_bytes: Most of its memory that one model's session may take; 0 sets no limit.
    """

    device: Device
    why: str
    gpu_id: int = 0
    gpu_memory_bytes: int = 0

    @property
    def provider(self) -> str:
        """Onnxruntime's name of it."""
        return PROVIDERS[self.device]


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
        cuda: How it runs on a GPU.
    """

    placement: Placement = field(default=Placement(Device.CPU, "asked for"))
    optimize: bool = True
    intra_op_threads: int = 0
    disabled_optimizers: tuple[str, ...] = ()
    profile_prefix: str | None = None
    keeps_memory: bool = True
    write_to: Path | None = None
    weights_name: str = ""
    cuda: CudaOptions = field(default=CudaOptions())


def available_cores(root: Path = Path("/")) -> int:
    """Cores this process may use: the smaller of its affinity and its cgroup's CPU quota.

    Args:
        root: Where `sys/fs/cgroup` and `proc` lie; another place in tests.

    Returns:
        At least 1; a quota of 1.5 cores counts as 2.
    """
    return cores_of_process(root).count


def choose_device(asked: Device, gpu_id: int = 0, gpu_memory_bytes: int = 0) -> Placement:
    """Settle what runs the models, and say why; never take another device silently.

    Args:
        asked: What a user wants.
        gpu_id: Number of the GPU, where it is to be one.
        gpu_memory_bytes: As `Placement`.

    Raises:
        DeviceError: A GPU was asked for and is not to be had; says what is missing.
    """
    if asked is Device.CPU:
        return Placement(Device.CPU, "asked for")
    device = Device.CUDA if asked is Device.AUTO else asked
    problem = why_not_on(PROVIDERS[device], gpu_id)
    if problem is None:
        why = "CUDA works here" if asked is Device.AUTO else "asked for"
        return Placement(device, why, gpu_id, gpu_memory_bytes)
    if asked is not Device.AUTO:
        raise DeviceError(device, problem)
    return Placement(Device.CPU, f"CUDA does not work here: {problem}")


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
