"""What the kernel says about the processes of a server, and about everybody else's.

Linux only: all of it is read from /proc.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36
CORES = len(os.sched_getaffinity(0))


def adopt_orphans() -> None:
    """Processes whose parents end become children of this one, so that none gets out of sight."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def descendants(root: int) -> set[int]:
    """All processes below one, itself left out."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


def cpu_seconds(processes: Iterable[int]) -> float:
    """CPU seconds of processes and of their children that ended and were waited for."""
    ticks = 0
    for pid in processes:
        if fields := _stat(pid):
            ticks += sum(int(each) for each in fields[11:15])
    return ticks / TICKS


def pss_mib(processes: Iterable[int]) -> float:
    """Memory of processes in MiB; what several share is divided among them."""
    kib = 0
    for pid in processes:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        kib += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return kib / 1024


@dataclass(frozen=True)
class Moment:
    """The time and the CPU seconds used so far by the whole machine, and by a server's processes."""

    at: float
    machine: float
    server: float

    @classmethod
    def now(cls, server: Iterable[int]) -> Moment:
        """This one."""
        return cls(time.perf_counter(), _machine_seconds(), cpu_seconds(server))


@dataclass(frozen=True)
class Usage:
    """Between two moments."""

    server_cpu_s: float
    others_cores: float

    @classmethod
    def between(cls, before: Moment, after: Moment, clients_cpu_s: float) -> Usage:
        """What the server used, and what is neither its nor the load generator's.

        The benchmark's own process sleeps meanwhile and is not told apart.
        """
        server = after.server - before.server
        others = after.machine - before.machine - server - clients_cpu_s
        return cls(server, max(0.0, others / (after.at - before.at)))


def _machine_seconds() -> float:
    """User, nice, system, irq, softirq and steal time of all cores."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _wait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / TICKS


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on; None if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
