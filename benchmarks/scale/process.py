"""One infold process, simulated: its own queue and dispatcher, with a number for a clock.

`BatchQueue` and `Dispatcher` are those that serve; what is simulated is what they do not know: the
time, the event loop, the interpreter that one thread holds at a time, and the runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agenda import Agenda, Lock
from service_times import Times

from infold.errors import QueueFullError
from infold.runtime import Batching
from infold.serving.batch_queue import BatchQueue, Ticket
from infold.serving.dispatch import Dispatcher, Job, Lane
from infold.settings import Settings

__all__ = ["Process", "Request"]

MOST_BYTES = int(Settings.model_fields["max_in_flight_bytes"].default)
MOST_CONNECTIONS = int(Settings.model_fields["max_connections"].default)
CAPACITY_ROWS = Batching().capacity_rows
MAX_ROWS = Batching().max_rows


@dataclass(eq=False, slots=True)
class Request:
    """One request on its way."""

    sent: float
    proxy: int = 0
    replica: int = 0
    taken: float = 0.0  # when its run began


class Process:
    """A process of so many cores that serves one model.

    Args:
        agenda: The clock.
        times: What requests take.
        cores: That it may use.
        answered: Called with a request once it has its answer.
        refused: Called with one that gets a 503.
        lost: Called with one that would have been answered, had the process not died.
        capacity_rows: Most rows that may wait.
    """

    def __init__(
        self,
        agenda: Agenda,
        times: Times,
        cores: int,
        answered: Callable[[Request], None],
        refused: Callable[[Request], None],
        lost: Callable[[Request], None],
        capacity_rows: int = CAPACITY_ROWS,
    ) -> None:
        self._agenda, self._times, self._cores = agenda, times, cores
        self._answered, self._refused, self._lost = answered, refused, lost
        self._lock = Lock(agenda)
        plan = times.plan
        join, wide = (plan.join_rows, plan.wide_cores) if plan else (1, 0)
        self._is_inline = plan is not None and plan.inline_rows > 0
        self._queue: BatchQueue[Request] = BatchQueue(join, 0.0, capacity_rows)
        self._lane = Lane(self._queue, 1, plan.runs if plan else cores, wide)
        self._dispatcher: Dispatcher[Request] = Dispatcher(cores)
        self._dispatcher.add(self._lane)
        self._running: dict[Job[Request], float] = {}  # to the seconds that the loop took from it
        most_by_bytes = MOST_BYTES // times.request_bytes if times.request_bytes else MOST_CONNECTIONS
        self._most_in_flight = min(MOST_CONNECTIONS, most_by_bytes)
        self.in_flight = 0
        self.is_alive = True

    def arrive(self, request: Request) -> None:
        """A request's last byte is here."""
        if self._queue.rows >= self._queue.capacity_rows or self.in_flight >= self._most_in_flight:
            self._refused(request)
            return
        self.in_flight += 1
        self._lock.hold(self._times.loop_s, self._read, request)

    def _read(self, request: Request) -> None:
        if self._is_inline:
            self._end(request)
            return
        if sum(job.cores for job in self._running) >= self._cores:  # the loop had its core from a run
            self._running[next(iter(self._running))] += self._times.loop_s
        try:
            self._queue.offer(Ticket(request, 1, None, self._agenda.now))
        except QueueFullError:
            self.in_flight -= 1
            self._refused(request)
            return
        self._start()

    def _start(self) -> None:
        while (job := self._dispatcher.next(self._agenda.now)) is not None:
            for ticket in job.tickets:
                ticket.payload.taken = self._agenda.now
            if self._times.locked_s:
                self._lock.hold(len(job.tickets) * self._times.locked_s, self._run, job)
            else:
                self._run(job)

    def _run(self, job: Job[Request]) -> None:
        seconds = self._times.wide_s if job.is_wide else self._times.run_s(len(job.tickets))
        self._running[job] = 0.0
        self._agenda.at(self._agenda.now + seconds, self._ran, job)

    def _ran(self, job: Job[Request]) -> None:
        if owed := self._running[job]:
            self._running[job] = 0.0
            self._agenda.at(self._agenda.now + owed, self._ran, job)
            return
        del self._running[job]
        self._lock.hold(0.0, self._done, job)  # it comes back with the answer once it has the interpreter

    def _done(self, job: Job[Request]) -> None:
        self._dispatcher.finished(job)
        for ticket in job.tickets:
            self._end(ticket.payload)
        self._start()

    def _end(self, request: Request) -> None:
        self.in_flight -= 1
        (self._answered if self.is_alive else self._lost)(request)
