"""Runs on the event loop itself, for models that are quicker than another thread would begin.

While such a run lasts nobody else is served. It is quick by measurement, but a
model may take longer on other data (a loop), or on a busy machine. So a second
thread looks on, and ends a run that holds up the loop; it is done over by a
runner, and the model is run by runners from then on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from infold.errors import SessionError
from infold.runtime import Stop
from infold.tensors import Array, Tensors

__all__ = ["InlineRuns"]

# A run that takes longer holds up every other request; now and then one may.
SLOW_S = 1e-3
PATIENCE = 64
# No run holds up the loop for longer than twice this.
LOOK_S = 0.01
IDLE_LOOKS = 20

Run = Callable[[Tensors, Sequence[str] | None, Stop | None], dict[str, Array]]


class InlineRuns:
    """Runs a model's requests where they were read, as long as it keeps its word to be short.

    Args:
        rows: Most rows of a request that may be run so; 0 allows none.
        run: Runs tensors.

    Attributes:
        seconds: That the last run took.
    """

    def __init__(self, rows: int, run: Run) -> None:
        self._rows = rows
        self._run = run
        self._slow = 0
        self.seconds = 0.0
        self._stop: Stop | None = None
        self._runs = 0  # begun and ended: odd while one is under way
        self._active = threading.Event()
        self._is_closed = False
        self._cpu_time = _cpu_clock()
        if rows:
            threading.Thread(target=self._look_on, name="infold-inline", daemon=True).start()

    def allows(self, rows: int) -> bool:
        """A request of so many rows may be run here."""
        return max(1, rows) <= self._rows

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> dict[str, Array] | None:
        """Outputs by name; None if the run was ended for taking too long, and none is allowed again.

        Raises:
            SessionError: The run failed by itself.
        """
        if self._stop is None:
            self._stop = Stop()
        if not self._active.is_set():
            self._active.set()
        began = time.perf_counter()
        self._runs += 1
        results = None
        try:
            results = self._run(tensors, outputs, self._stop)
        except SessionError:
            if self._rows:
                raise
        finally:
            self._runs += 1
            self.seconds = time.perf_counter() - began
            if self.seconds > SLOW_S:
                self._count_slow()
            elif self._slow:
                self._slow -= 1
        return results

    @property
    def is_over(self) -> bool:
        """No more runs are allowed here."""
        return not self._rows

    def close(self) -> None:
        """End the thread that looks on, and let the session go."""
        self._is_closed = True
        del self._run
        self._active.set()

    def _count_slow(self) -> None:
        self._slow += 1
        if self._slow >= PATIENCE:
            self._rows = 0

    def _look_on(self) -> None:
        """End a run that is still the same one after a look."""
        while not self._is_closed and self._rows:
            self._active.wait()
            seen, idle, since = -1, 0, self._cpu_time()
            while idle < IDLE_LOOKS and not self._is_closed:
                time.sleep(LOOK_S)
                now = self._runs
                if now != seen:
                    seen, idle, since = now, 0, self._cpu_time()
                elif not now % 2:
                    idle += 1
                elif self._cpu_time() - since >= LOOK_S and self._stop is not None:
                    self._rows = 0
                    self._stop.set()
                    return
            self._active.clear()


def _cpu_clock() -> Callable[[], float]:
    """Seconds that the calling thread has had a core, to be asked from any thread; wall time elsewhere."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.monotonic
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return lambda: time.clock_gettime(clock)
