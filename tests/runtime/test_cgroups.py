"""Limits of cgroups, as engines lay their files: v2, v1, both; with a namespace and without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infold.runtime.cgroups import cgroup_folders, cpu_quota, memory_limit, memory_used
from infold.runtime.cores import cores_of_process

MIB = 2**20
POD = "/kubepods/burstable/pod7/3f9a"
V1 = "rw,nosuid - cgroup cgroup rw,xattr,"
NO_LIMIT = str(2**63 - 4096)


def machine(root: Path, files: dict[str, str]) -> Path:
    """A machine with these files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


# What `docker run --cpus 0.5 --memory 512m` leaves to be seen, by kind of host.
ENGINES = {
    "v2 with a namespace": {
        "proc/self/cgroup": "0::/",
        "proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate",
        "sys/fs/cgroup/cpu.max": "50000 100000",
        "sys/fs/cgroup/memory.max": str(512 * MIB),
        "sys/fs/cgroup/memory.current": str(90 * MIB),
        "sys/fs/cgroup/memory.stat": f"anon 7\ninactive_file {50 * MIB}",
    },
    "v2 of the host": {
        "proc/self/cgroup": f"0::{POD}",
        "proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup rw",
        "sys/fs/cgroup/kubepods/cpu.max": "max 100000",
        "sys/fs/cgroup/kubepods/burstable/pod7/cpu.max": "50000 100000",
        "sys/fs/cgroup/kubepods/burstable/pod7/memory.max": str(512 * MIB),
        "sys/fs/cgroup/kubepods/burstable/pod7/memory.current": str(40 * MIB),
        f"sys/fs/cgroup{POD}/cpu.max": "100000 100000",
        f"sys/fs/cgroup{POD}/memory.max": "max",
    },
    "v1 whose mount is the container's own folder": {
        "proc/self/cgroup": f"9:name=systemd:{POD}\n4:cpu,cpuacct:{POD}\n2:memory:{POD}\n0::/",
        "proc/self/mountinfo": (
            f"40 30 0:30 {POD} /sys/fs/cgroup/cpu,cpuacct {V1}cpu,cpuacct\n"
            f"41 30 0:31 {POD} /sys/fs/cgroup/memory {V1}memory\n"
            f"42 30 0:32 {POD} /sys/fs/cgroup/systemd {V1}name=systemd"
        ),
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(512 * MIB),
        "sys/fs/cgroup/memory/memory.usage_in_bytes": str(90 * MIB),
        "sys/fs/cgroup/memory/memory.stat": f"cache 1\ntotal_inactive_file {50 * MIB}",
        # A container in this one: nothing of ours, though its path begins as ours does.
        f"sys/fs/cgroup/cpu,cpuacct{POD}/cpu.cfs_quota_us": "1000",
        f"sys/fs/cgroup/memory{POD}/memory.limit_in_bytes": "4096",
    },
    "v1 with all of the host's folders": {
        "proc/self/cgroup": "4:cpu,cpuacct:/docker/3f9a\n2:memory:/docker/3f9a",
        "proc/self/mountinfo": (
            f"40 30 0:30 / /sys/fs/cgroup/cpu,cpuacct {V1}cpu,cpuacct\n"
            f"41 30 0:31 / /sys/fs/cgroup/memory {V1}memory"
        ),
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpu,cpuacct/docker/3f9a/cpu.cfs_quota_us": "50000",
        "sys/fs/cgroup/cpu,cpuacct/docker/3f9a/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT,
        "sys/fs/cgroup/memory/docker/3f9a/memory.limit_in_bytes": str(512 * MIB),
        "sys/fs/cgroup/memory/docker/3f9a/memory.usage_in_bytes": str(40 * MIB),
    },
    "hybrid, mounted elsewhere": {
        "proc/self/cgroup": "4:cpu:/a b\n2:memory:/a b\n0::/unit",
        "proc/self/mountinfo": (
            f"39 30 0:29 / /cg/unified rw - cgroup2 cgroup2 rw\n40 30 0:30 / /cg/the\\040cpu {V1}cpu\n"
            f"41 30 0:31 / /cg/memory {V1}memory\n42 30 0:33 / /proc rw - proc proc rw"
        ),
        "cg/unified/unit/cgroup.procs": "1",
        "cg/the cpu/a b/cpu.cfs_quota_us": "12500",
        "cg/the cpu/a b/cpu.cfs_period_us": "25000",
        "cg/memory/a b/memory.limit_in_bytes": str(512 * MIB),
        "cg/memory/a b/memory.usage_in_bytes": str(40 * MIB),
        "sys/fs/cgroup/cpu.max": "1000 100000",
    },
}  # fmt: skip


@pytest.mark.parametrize("files", ENGINES.values(), ids=ENGINES)
def test_half_a_core_and_512_mib_are_that_wherever_they_stand(tmp_path: Path, files: dict[str, str]) -> None:
    """The quota, the limit and what is used of it, each with the file that says so."""
    root = machine(tmp_path, files)
    quota, limit, used = cpu_quota(root), memory_limit(root), memory_used(root)
    assert quota is not None and limit is not None and used is not None
    assert (quota.value, limit.value, used.value) == (0.5, 512 * MIB, 40 * MIB)
    assert quota.file.is_file() and limit.file.is_file() and used.file.parent == limit.file.parent


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/memory.max": "max"},
        {"sys/fs/cgroup/cpu.max": "", "sys/fs/cgroup/memory.max": ""},
        {"sys/fs/cgroup/cpu.max": "50000 0", "sys/fs/cgroup/memory.max": "0"},
        {"sys/fs/cgroup/cpu.max": "half a core", "sys/fs/cgroup/memory.max": "-1"},
        {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT,
            "sys/fs/cgroup/memory/memory.stat": f"hierarchical_memory_limit {NO_LIMIT}",
        },
        {"proc/self/cgroup": "nonsense\n::\n", "proc/self/mountinfo": "1 2\n - cgroup2\n3 4 0:1 / / - \n"},
    ],
)  # fmt: skip
def test_no_limit_and_nonsense_are_no_limit(tmp_path: Path, files: dict[str, str]) -> None:
    """And no traceback."""
    root = machine(tmp_path, files)
    assert (cpu_quota(root), memory_limit(root)) == (None, None)


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("50000 100000", 0.5),
        ("50000", 0.5),
        ("3000 7000", 3 / 7),
        ("1000000 1000000", 1.0),
        ("250000 50000", 5),
    ],
)
def test_a_quota_is_a_part_of_its_own_period(tmp_path: Path, text: str, cores: float) -> None:
    """Which need not be the usual one."""
    quota = cpu_quota(machine(tmp_path, {"sys/fs/cgroup/cpu.max": text}))
    assert quota is not None and quota.value == pytest.approx(cores)


def test_a_limit_above_that_is_not_to_be_seen_counts_in_v1(tmp_path: Path) -> None:
    """A pod's, beside which its containers have none."""
    root = machine(
        tmp_path,
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT,
            "sys/fs/cgroup/memory/memory.stat": f"hierarchical_memory_limit {256 * MIB}",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(MIB),
        },
    )
    limit, used = memory_limit(root), memory_used(root)
    assert limit is not None and (limit.value, limit.file.name) == (256 * MIB, "memory.stat")
    assert used is not None and used.value == MIB


def test_a_mount_from_above_the_namespace_is_taken_as_it_is(tmp_path: Path) -> None:
    """What the folders between it and this process are called nobody tells."""
    line = "31 23 0:28 /../.. /sys/fs/cgroup ro - cgroup2 cgroup rw"
    root = machine(tmp_path, {"proc/self/cgroup": "0::/x", "proc/self/mountinfo": line})
    assert cgroup_folders("cpu", root) == [root / "sys/fs/cgroup"]


@pytest.mark.parametrize(
    ("affinity", "quota", "count", "why"),
    [
        (16, None, 16, ""),
        (4, None, 4, "affinity; the machine has 16"),
        (16, "50000 100000", 1, "quota 0.5"),
        (16, "150000 100000", 2, "quota 1.5"),
        (1, "400000 100000", 1, "affinity; the machine has 16"),
        (2, "3333 100000", 1, "quota 0.03333"),
    ],
)
def test_the_tighter_of_quota_and_affinity_is_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, affinity: int, quota: str | None, count: int, why: str
) -> None:
    """A cpuset is part of the affinity."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    root = machine(tmp_path, {} if quota is None else {"sys/fs/cgroup/cpu.max": quota})
    cores = cores_of_process(root)
    assert (cores.count, cores.why) == (count, why)
