"""What a service takes while nobody asks it anything: memory, descriptors, threads, and what still waits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from faults.stage import Stage, until

__all__ = ["HAS_PROC", "Vitals"]

HAS_PROC = Path("/proc/self/smaps_rollup").exists()
PSS = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Vitals:
    """Of all processes of a service together.

    Attributes:
        memory_mib: Their own, and their share of what they share.
        descriptors: Files and sockets that are open.
        threads: That there are.
        waiting_rows: Rows in queues.
        in_flight: Requests that wait or run.
        processes: The supervisor and its workers, as far as they live.
    """

    memory_mib: float
    descriptors: int
    threads: int
    waiting_rows: int
    in_flight: int
    processes: int

    @classmethod
    def of(cls, stage: Stage) -> Self:
        """What the service has now."""
        found = [Path(f"/proc/{pid}") for pid in stage.host.processes if is_alive(pid)]
        return cls(
            sum(int(_pss(each)) for each in found) / 1024,
            sum(len(list((each / "fd").iterdir())) for each in found),
            sum(len(list((each / "task").iterdir())) for each in found),
            int(stage.total("infold_queue_rows")),
            int(stage.total("infold_requests_in_flight")),
            len(found),
        )

    @classmethod
    def at_rest(cls, stage: Stage) -> Self:
        """What it has once nothing is under way any more; fails if something stays."""
        until(lambda: stage.total("infold_requests_in_flight") == 0, "the last request to end")
        until(lambda: stage.total("infold_queue_rows") == 0, "queues to be empty")
        return cls.of(stage)

    def __str__(self) -> str:
        return (
            f"{self.memory_mib:8.1f} MiB {self.descriptors:6} descriptors {self.threads:5} threads "
            f"{self.waiting_rows:5} rows waiting {self.in_flight:4} in flight {self.processes:3} processes"
        )


def is_alive(pid: int) -> bool:
    """It runs; what nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _pss(process: Path) -> str:
    found = PSS.search((process / "smaps_rollup").read_text())
    assert found is not None
    return found[1]
