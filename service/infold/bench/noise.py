"""How busy others kept the machine during a run."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["Noise"]


class Noise:
    """Cores that other processes used since this was made.

    Args:
        process: Part of the run, as are all processes below it by now.
        root: Where `proc` lies; another place in tests.
    """

    def __init__(self, process: int, root: Path = Path("/")) -> None:
        self._proc = root / "proc"
        self._processes = self._family(process)
        self._before = self._read()

    def cores(self, seconds: float) -> float | None:
        """The mean over that many seconds; None where the machine does not tell."""
        now = self._read()
        if self._before is None or now is None or seconds <= 0:
            return None
        total, own = now[0] - self._before[0], now[1] - self._before[1]
        if total <= 0:  # some sandboxes show a machine that never works
            return None
        return max(0.0, total - own) / os.sysconf("SC_CLK_TCK") / seconds

    def _family(self, process: int) -> list[int]:
        """A process and all below it."""
        found = [process]
        for children in (self._proc / str(process) / "task").glob("*/children"):
            try:
                below = children.read_text().split()
            except OSError:  # that thread has ended
                continue
            for child in below:
                found += self._family(int(child))
        return found

    def _read(self) -> tuple[int, int] | None:
        """Clock ticks of work of all processes, and of ours."""
        try:
            fields = (self._proc / "stat").read_text().splitlines()[0].split()
            # user nice system, then irq softirq steal; idle and iowait are no work
            total = sum(int(field) for field in (*fields[1:4], *fields[6:9]))
            return total, sum(self._used(process) for process in self._processes)
        except (OSError, ValueError, IndexError):
            return None

    def _used(self, process: int) -> int:
        try:
            text = (self._proc / str(process) / "stat").read_text()
        except OSError:  # it has ended
            return 0
        after_name = text.rpartition(")")[2].split()
        return int(after_name[11]) + int(after_name[12])
