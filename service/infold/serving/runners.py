"""The threads that run models, as many as there are cores; each takes its next job by itself.

A runner does not report back to the event loop for its next batch: while the
loop reads a large body or encodes an answer, the cores stay busy.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from infold.serving.batch_queue import BatchQueue, Ticket
from infold.serving.dispatch import Dispatcher, Job, Lane

__all__ = ["Runners", "clock"]

log = logging.getLogger(__name__)
Payload = TypeVar("Payload")

# The one clock of deadlines and of the queue: seconds, never set back.
clock = time.monotonic


@dataclass(eq=False, slots=True)
class _Served(Lane[Payload]):
    """A lane with what its jobs do."""

    execute: Callable[[list[Ticket[Payload]], bool], None] = lambda tickets, is_wide: None


class Runners(Generic[Payload]):
    """A few threads that share the cores among the lanes.

    Args:
        cores: Threads, and cores to share out.
    """

    def __init__(self, cores: int) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._dispatcher: Dispatcher[Payload] = Dispatcher(cores)
        self._sleeping = 0
        self._is_closing = False
        self._began: list[float | None] = [None] * cores  # of what each thread does now
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"infold-runner-{number}", daemon=True)
            for number in range(cores)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def cores(self) -> int:
        """That are shared out."""
        return self._dispatcher.cores

    @property
    def longest_s(self) -> float:
        """Seconds that the longest of the jobs under way has taken so far; 0 if there is none."""
        now = clock()
        return max((now - began for began in self._began if began is not None), default=0.0)

    def nobody_waits(self) -> bool:
        """No request waits for a run, whatever model it is for."""
        with self._changed:
            return not self._dispatcher.has_waiting

    def add(
        self,
        queue: BatchQueue[Payload],
        execute: Callable[[list[Ticket[Payload]], bool], None],
        *,
        cores: int = 1,
        runs: int = 1,
        wide_cores: int = 0,
    ) -> Lane[Payload]:
        """Serve one more queue.

        Args:
            queue: Touched from now on only through `offer` and `withdraw`.
            execute: Called in a runner with a batch, and whether it has all cores; must not raise.
            cores: As `Lane`, and so the rest.
            runs: See there.
            wide_cores: See there.
        """
        lane = _Served(queue, cores, runs, wide_cores, execute=execute)
        with self._changed:
            self._dispatcher.add(lane)
        return lane

    def remove(self, lane: Lane[Payload]) -> None:
        """Serve a queue no more."""
        with self._changed:
            self._dispatcher.remove(lane)

    def offer(self, lane: Lane[Payload], ticket: Ticket[Payload]) -> None:
        """Let a request wait for its run.

        Raises:
            QueueFullError: There is no room.
        """
        with self._changed:
            lane.queue.offer(ticket)
            if self._sleeping:
                self._changed.notify()

    def withdraw(self, lane: Lane[Payload], ticket: Ticket[Payload]) -> bool:
        """Take a request out of its queue; False if it has left already."""
        with self._changed:
            return lane.queue.withdraw(ticket)

    def close(self) -> None:
        """End the threads once they have finished what they run; does not wait for them."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    def _work(self, number: int) -> None:
        while (job := self._next()) is not None:
            self._began[number] = clock()
            try:
                assert isinstance(job.lane, _Served)
                job.lane.execute(job.tickets, job.is_wide)
            except Exception:
                log.exception("a run was lost")
            finally:
                self._began[number] = None
                with self._changed:
                    self._dispatcher.finished(job)
            del job  # or this thread would hold its requests, bodies and all, until its next one

    def _next(self) -> Job[Payload] | None:
        with self._changed:
            while not self._is_closing:
                now = clock()
                if (job := self._dispatcher.next(now)) is not None:
                    if self._sleeping and self._dispatcher.has_more:
                        self._changed.notify()
                    return job
                due = self._dispatcher.due()
                self._sleeping += 1
                # What is due already waits for cores, and whoever frees some says so.
                self._changed.wait(due - now if due is not None and due > now else None)
                self._sleeping -= 1
        return None
