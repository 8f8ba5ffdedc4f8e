"""Cores from affinity and cgroups; devices that are never swapped silently."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infold.errors import DeviceError
from infold.runtime import Device, available_cores, choose_device
from infold.runtime.options import RunOptions, session_options


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process may run on sixteen cores, wherever the tests run."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def write(root: Path, path: str, text: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text + "\n")


def test_without_cgroups_affinity_counts(tmp_path: Path) -> None:
    """No quota anywhere leaves the cores that the scheduler allows."""
    assert available_cores(tmp_path) == 16


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("1000 100000", 1), ("max 100000", 16)],
)
def test_cgroup_v2_quota(tmp_path: Path, quota: str, cores: int) -> None:
    """Part of a core counts as a whole one, and never fewer than one."""
    write(tmp_path, "sys/fs/cgroup/cpu.max", quota)
    assert available_cores(tmp_path) == cores


def test_a_quota_above_the_affinity_changes_nothing(tmp_path: Path) -> None:
    """The smaller of the two counts."""
    write(tmp_path, "sys/fs/cgroup/cpu.max", "6400000 100000")
    assert available_cores(tmp_path) == 16


@pytest.mark.parametrize("tightest", ["", "a/", "a/b/"])
def test_nested_cgroup_v2(tmp_path: Path, tightest: str) -> None:
    """The tightest quota of this process's cgroup and all above it holds."""
    write(tmp_path, "proc/self/cgroup", "0::/a/b")
    for folder in ("", "a/", "a/b/"):
        quota = "300000 100000" if folder == tightest else "max 100000"
        write(tmp_path, f"sys/fs/cgroup/{folder}cpu.max", quota)
    assert available_cores(tmp_path) == 3


def test_a_neighbour_s_cgroup_does_not_count(tmp_path: Path) -> None:
    """Only the way from the root to this process's own cgroup is looked at."""
    write(tmp_path, "proc/self/cgroup", "0::/a")
    write(tmp_path, "sys/fs/cgroup/b/cpu.max", "100000 100000")
    assert available_cores(tmp_path) == 16


def test_a_cgroup_path_that_climbs_is_not_followed(tmp_path: Path) -> None:
    """Inside a cgroup namespace the path may start with `..`; the tree still ends at its root."""
    write(tmp_path, "proc/self/cgroup", "0::/../a")
    write(tmp_path, "sys/fs/cpu.max", "100000 100000")
    write(tmp_path, "sys/fs/cgroup/a/cpu.max", "500000 100000")
    assert available_cores(tmp_path) == 5


@pytest.mark.parametrize("controller", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "cores"), [("250000", 3), ("-1", 16)])
def test_cgroup_v1(tmp_path: Path, controller: str, quota: str, cores: int) -> None:
    """The older hierarchy has quota and period in files of their own; -1 means none."""
    write(tmp_path, f"sys/fs/cgroup/{controller}/cpu.cfs_quota_us", quota)
    write(tmp_path, f"sys/fs/cgroup/{controller}/cpu.cfs_period_us", "100000")
    assert available_cores(tmp_path) == cores


def test_sessions_take_the_available_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 threads means all that may be used; a number is taken as it is; one inter-op thread always."""
    monkeypatch.setattr("infold.runtime.options.available_cores", lambda: 7)
    assert session_options(RunOptions()).intra_op_num_threads == 7
    assert session_options(RunOptions(intra_op_threads=3)).intra_op_num_threads == 3
    assert session_options(RunOptions()).inter_op_num_threads == 1


def test_optimization_is_all_or_nothing() -> None:
    """Proofs need a graph that runs as it is written."""
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    assert session_options(RunOptions()).graph_optimization_level == levels.ORT_ENABLE_ALL
    assert session_options(RunOptions(optimize=False)).graph_optimization_level == levels.ORT_DISABLE_ALL


@pytest.fixture
def cpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Onnxruntime as the CPU wheel has it."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])


@pytest.mark.usefixtures("cpu_build")
def test_cuda_on_a_cpu_build_is_an_error_with_its_remedy() -> None:
    """Asking for CUDA where only the CPU wheel is installed says what to install."""
    with pytest.raises(DeviceError, match=r"CPU build.*pip install 'infold\[gpu\]'") as caught:
        choose_device(Device.CUDA)
    assert caught.value.device == "cuda"


@pytest.mark.usefixtures("cpu_build")
def test_auto_falls_back_and_says_why() -> None:
    """`auto` takes the CPU, and the start-up line can tell the reason."""
    placement = choose_device(Device.AUTO)
    assert placement.device is Device.CPU and placement.provider == "CPUExecutionProvider"
    assert "CPU build" in placement.why


def test_cpu_is_what_was_asked_for() -> None:
    """Asking for the CPU needs no probing."""
    assert choose_device(Device.CPU).why == "asked for"


def test_a_cuda_provider_that_does_not_load_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU build on a machine without a GPU: the probe graph lands on the CPU, which is no CUDA."""
    monkeypatch.setattr(
        "onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )

    class OnCpu:
        def __init__(self, *_: object, **__: object) -> None: ...

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr("onnxruntime.InferenceSession", OnCpu)
    monkeypatch.setattr("infold.runtime.gpu_check.provider_file", lambda name: None)
    with pytest.raises(DeviceError, match="could not load its CUDA provider"):
        choose_device(Device.CUDA)


def test_what_the_driver_says_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that throws gives its first line as the reason."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("driver too old\nsecond line")

    monkeypatch.setattr("onnxruntime.InferenceSession", broken)
    monkeypatch.setattr("infold.runtime.gpu_check.provider_file", lambda name: None)
    with pytest.raises(DeviceError, match="driver too old$"):
        choose_device(Device.CUDA)


def test_the_probe_graph_is_a_model() -> None:
    """The bytes that stand for `y = Identity(x)` load and run."""
    import numpy as np
    import onnxruntime

    from infold.runtime.gpu_check import IDENTITY

    session = onnxruntime.InferenceSession(IDENTITY, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.array([2.5], np.float32)})[0].tolist() == [2.5]
