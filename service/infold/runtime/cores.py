"""How many cores this process may keep busy, and what says so."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from infold.runtime.cgroups import Bound, cpu_quota

__all__ = ["Cores", "cores_of_process"]


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores of this process.

    Attributes:
        host: That the machine has.
        affinity: That the scheduler lets it run on; a cpuset of its cgroup is part of that.
        quota: Of its cgroup or one above, in cores; None for no limit.
    """

    host: int
    affinity: int
    quota: Bound | None

    @property
    def count(self) -> int:
        """What it may keep busy: at least 1; a quota of 1.5 cores counts as 2."""
        most = self.affinity if self.quota is None else min(self.affinity, math.ceil(self.quota.value))
        return max(1, most)

    def each(self, processes: int) -> int:
        """The part of one of so many processes: at least 1, which they share then."""
        return max(1, self.count // processes)

    @property
    def why(self) -> str:
        """What leaves it so many; empty where it has all that there are."""
        if self.quota is not None and self.quota.value < self.affinity:
            return f"quota {self.quota.value:.4g}"
        return f"affinity; the machine has {self.host}" if self.affinity < self.host else ""


def cores_of_process(root: Path = Path("/")) -> Cores:
    """The cores of this process, as they are now.

    Args:
        root: Where `sys` and `proc` lie; another place in tests.
    """
    host = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else host
    return Cores(max(host, affinity), affinity, cpu_quota(root))
