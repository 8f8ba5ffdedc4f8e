"""Whose run is next, and on how many cores: knows no clock, no threads and no tensors.

All models share the cores of one process. The request that has waited longest
goes first, whichever model it asks; a run takes as many cores as its plan says
and waits until so many are free, so that several busy models never crowd each
other. A request that finds everything idle gets all cores, if its model has a
session for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from infold.serving.batch_queue import BatchQueue, Ticket

__all__ = ["Dispatcher", "Job", "Lane"]

Payload = TypeVar("Payload")


@dataclass(eq=False, slots=True)
class Lane(Generic[Payload]):
    """The queue of one model, and what its runs take.

    Attributes:
        queue: Requests that wait.
        cores: That one run takes.
        runs: Runs at once, at most.
        wide_cores: That a run may take while no other is under way; 0 where there is no such session.
        active: Runs under way.
    """

    queue: BatchQueue[Payload]
    cores: int = 1
    runs: int = 1
    wide_cores: int = 0
    active: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Job(Generic[Payload]):
    """A batch with the cores it was given."""

    lane: Lane[Payload]
    tickets: list[Ticket[Payload]]
    cores: int
    is_wide: bool


class Dispatcher(Generic[Payload]):
    """Shares cores out among lanes.

    Args:
        cores: That all runs together may take.
    """

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self._free = cores
        self._lanes: list[Lane[Payload]] = []

    @property
    def has_more(self) -> bool:
        """A core is free and a request waits."""
        return self._free > 0 and any(len(lane.queue) for lane in self._lanes)

    @property
    def has_waiting(self) -> bool:
        """A request waits."""
        return any(len(lane.queue) for lane in self._lanes)

    @property
    def is_idle(self) -> bool:
        """Nothing runs."""
        return self._free == self.cores

    def add(self, lane: Lane[Payload]) -> None:
        """Serve one more lane."""
        self._lanes.append(lane)

    def remove(self, lane: Lane[Payload]) -> None:
        """Serve a lane no more; what it runs is still counted until it has finished."""
        self._lanes.remove(lane)

    def next(self, now: float) -> Job[Payload] | None:
        """The next run, or None while nothing is due or no cores are free for it."""
        if not self._free:
            return None
        for lane in self._waiting():
            due = lane.queue.due()
            if lane.active >= lane.runs or due is None or due > now:
                continue
            cores = min(lane.cores, self.cores)
            if cores > self._free:
                return None  # it is its turn: nobody overtakes it
            tickets = lane.queue.take(now)
            if not tickets:
                continue
            is_wide = bool(lane.wide_cores) and self.is_idle and not any(len(x.queue) for x in self._lanes)
            if is_wide:
                cores = min(lane.wide_cores, self.cores)
            lane.active += 1
            self._free -= cores
            return Job(lane, tickets, cores, is_wide)
        return None

    def finished(self, job: Job[Payload]) -> None:
        """Take its cores back."""
        job.lane.active -= 1
        self._free += job.cores

    def due(self) -> float | None:
        """When something becomes due that waits for company; None if nothing does."""
        lanes = [lane for lane in self._lanes if lane.active < lane.runs]
        return min((due for lane in lanes if (due := lane.queue.due()) is not None), default=None)

    def _waiting(self) -> list[Lane[Payload]]:
        """Lanes with requests, the one whose request has waited longest first."""
        lanes = [lane for lane in self._lanes if len(lane.queue)]
        if len(lanes) > 1:
            lanes.sort(key=lambda lane: lane.queue.oldest or 0.0)
        return lanes
