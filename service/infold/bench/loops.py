"""Closed and open loop: who sends the next request, and when.

In a closed loop a fixed number of callers each wait for their answer before they ask again, so
a slow server is asked less. In an open loop requests are due at times fixed beforehand, whatever
the server does, and latency counts from when a request was due. So a stall is seen by everyone
who would have come meanwhile, not only by those who happened to be waiting.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import ssl
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from infold.bench.alarm import Alarm
from infold.bench.answers import Answer, Judge
from infold.bench.client import Caller
from infold.bench.outcomes import Kind, Load, Loop, Outcomes, Window
from infold.bench.schedule import arrivals
from infold.errors import ServerError

__all__ = ["ClosedLoad", "OpenLoad", "Timing", "Work"]

REFUSALS = (429, 503)
RECONNECT_S = 0.05
# How long answers that are still out are waited for when a load is over: at least this, and
# at least twice as long as the load took.
GRACE_S = 10.0
# Connections of an open loop; what is due while all are busy waits here, and its latency runs.
MOST_CONNECTIONS = 512
SPARE_FILES = 64
SEED = 20150306


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a load lasts: what comes before counts for nothing."""

    seconds: float
    warmup_s: float


@dataclass(frozen=True, slots=True)
class Work:
    """What is sent, where, and who judges the answers.

    Attributes:
        wires: Whole HTTP requests, sent in turn.
        tls: For a server that speaks it.
    """

    host: str
    port: int
    wires: Sequence[bytes]
    judge: Judge
    tls: ssl.SSLContext | None = None

    @property
    def place(self) -> str:
        """Where it is sent, for errors."""
        return f"{'http' if self.tls is None else 'https'}://{self.host}:{self.port}"


class _Load(ABC):
    """One load: connections, and what became of each request.

    Attributes:
        first_failure: Status and text of the first answer that is neither right nor a refusal.
    """

    def __init__(self, work: Work, timing: Timing) -> None:
        self.first_failure: str | None = None
        self._work = work
        self._timing = timing
        self._outcomes = Outcomes()
        self._callers: set[Caller] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = 0
        self._busy = 0
        self._turn = 0
        self._end = 0.0
        self._is_over = False

    async def run(self) -> Load:
        """Put the load on the server and return its row.

        Raises:
            ServerError: The server cannot be connected to when the load begins.
        """
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._loop.set_exception_handler(self._crashed)
        gc.collect()
        gc.disable()
        timers = []
        try:
            await asyncio.gather(*(self._connect() for _ in range(self._first_callers)))
            start = time.monotonic()
            length = self._timing.warmup_s + self._timing.seconds
            window = Window(start + self._timing.warmup_s, start + length)
            self._end = window.end
            timers.append(self._loop.call_later(length, self._maybe_finish))
            timers.append(self._loop.call_later(length + max(GRACE_S, 2 * length), self._finish))
            self._begin(start)
            await self._done
        finally:
            gc.enable()
            self._is_over = True
            for timer in timers:
                timer.cancel()
            self._close()
        self._work.judge.settle()
        return self._outcomes.summary(self._kind, self._amount, window)

    # -- what the two loops decide

    @property
    @abstractmethod
    def _kind(self) -> Loop: ...

    @property
    @abstractmethod
    def _amount(self) -> float: ...

    @property
    @abstractmethod
    def _first_callers(self) -> int: ...

    @abstractmethod
    def _begin(self, start: float) -> None: ...

    @abstractmethod
    def _free(self, caller: Caller) -> None:
        """A connection is open and idle."""

    @abstractmethod
    def _is_finished(self, now: float) -> bool: ...

    def _replace(self, delay_s: float) -> None:
        """A connection is gone."""
        self._spawn(delay_s)

    # -- connections

    async def _connect(self) -> Caller:
        caller = Caller(self)
        try:
            work = self._work
            await self._loop.create_connection(lambda: caller, work.host, work.port, ssl=work.tls)
        except OSError as failure:
            raise ServerError(work.place, f"cannot connect: {failure.strerror or failure}") from failure
        self._callers.add(caller)
        return caller

    def _spawn(self, delay_s: float = 0.0) -> None:
        """Open one more connection in the background."""

        async def opened() -> None:
            try:
                await asyncio.sleep(delay_s)
                caller = await self._connect()
            except ServerError as failure:
                self._opening -= 1
                self.first_failure = self.first_failure or str(failure)
                self._fail_unreachable()
                return
            self._opening -= 1
            self._ready(caller)

        self._opening += 1
        task = self._loop.create_task(opened())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fail_unreachable(self) -> None:
        if not self._is_over:
            self._spawn(4 * RECONNECT_S)

    def _ready(self, caller: Caller) -> None:
        if not self._is_over and caller.is_open and not caller.is_busy:
            self._free(caller)

    def _send(self, caller: Caller, due: float) -> None:
        wires = self._work.wires
        request = self._turn
        self._turn = request + 1 if request + 1 < len(wires) else 0
        self._busy += 1
        caller.send(wires[request], request, due)

    # -- what connections tell

    def answered(self, caller: Caller, status: int, answer: Answer) -> None:
        """See Owner."""
        if self._is_over:
            return
        now = time.monotonic()
        self._busy -= 1
        if status == 200:
            entry = self._outcomes.add(caller.due, now, Kind.RIGHT)
            self._work.judge.see(self._outcomes, entry, caller.request, answer)
        elif status in REFUSALS:
            self._outcomes.add(caller.due, now, Kind.REFUSED)
        else:
            self._outcomes.add(caller.due, now, Kind.FAILED)
            if self.first_failure is None:
                self.first_failure = f"status {status}: {answer[1][:200].decode('utf-8', 'replace')}"
        if caller.is_open:
            self._free(caller)
        self._maybe_finish(now)

    def lost(self, caller: Caller) -> None:
        """See Owner."""
        self._callers.discard(caller)
        if self._is_over:
            return
        now = time.monotonic()
        delay_s = 0.0  # a server may close after each answer
        if caller.is_busy:
            caller.is_busy = False
            self._busy -= 1
            self._outcomes.add(caller.due, now, Kind.FAILED)
            self.first_failure = self.first_failure or "the connection was lost before the answer"
            delay_s = RECONNECT_S
        self._replace(delay_s)
        self._maybe_finish(now)

    def broke(self, failure: BaseException) -> None:
        """See Owner."""
        if not self._done.done():
            self._done.set_exception(failure)

    def _crashed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop
        self.broke(context.get("exception") or RuntimeError(context["message"]))

    # -- the end

    def _maybe_finish(self, now: float | None = None) -> None:
        # The timer of the loop may be a moment early; it counts as the end.
        if self._is_finished(self._end if now is None else now):
            self._finish()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _close(self) -> None:
        """Close everything; what is still out has never been answered."""
        now = time.monotonic()
        for task in self._tasks:
            task.cancel()
        for caller in list(self._callers):
            if caller.is_busy:
                self._outcomes.add(caller.due, now, Kind.UNANSWERED)
                self.first_failure = self.first_failure or f"no answer in {now - caller.due:.0f} s"
            caller.abort()


class ClosedLoad(_Load):
    """So many callers, each of which asks again as soon as it has its answer."""

    def __init__(self, work: Work, timing: Timing, callers: int) -> None:
        super().__init__(work, timing)
        self._count = callers

    @property
    def _kind(self) -> Loop:
        return Loop.CLOSED

    @property
    def _amount(self) -> float:
        return float(self._count)

    @property
    def _first_callers(self) -> int:
        return self._count

    def _begin(self, start: float) -> None:
        del start
        for caller in list(self._callers):
            self._ready(caller)

    def _free(self, caller: Caller) -> None:
        now = time.monotonic()
        if now < self._end:
            self._send(caller, now)

    def _is_finished(self, now: float) -> bool:
        return now >= self._end and self._busy == 0

    def _fail_unreachable(self) -> None:
        now = time.monotonic()
        self._outcomes.add(now, now, Kind.FAILED)
        super()._fail_unreachable()


class OpenLoad(_Load):
    """Requests at random times that are fixed beforehand, whether or not the server keeps up."""

    def __init__(self, work: Work, timing: Timing, rate: float) -> None:
        super().__init__(work, timing)
        self._rate = rate
        self._idle: list[Caller] = []
        self._waiting: deque[float] = deque()
        self._times: list[float] = []
        self._next = 0
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = max(1, min(MOST_CONNECTIONS, files - SPARE_FILES))

    @property
    def _kind(self) -> Loop:
        return Loop.OPEN

    @property
    def _amount(self) -> float:
        return self._rate

    @property
    def _first_callers(self) -> int:
        return min(self._most, 8 + int(self._rate * 0.02))

    def _begin(self, start: float) -> None:
        rng = np.random.default_rng(SEED)
        schedule = arrivals(self._rate, self._timing.warmup_s + self._timing.seconds, rng)
        self._times = [start + float(each) for each in schedule]
        self._idle = [caller for caller in self._callers if caller.is_open]
        self._alarm = Alarm(self._loop, self._ring)
        self._ring()

    def _ring(self) -> None:
        """Let everything leave that is due."""
        now = time.monotonic()
        times, number = self._times, self._next
        while number < len(times) and times[number] <= now:
            self._waiting.append(times[number])
            self._outcomes.late.append(now - times[number])
            number += 1
        self._next = number
        if number < len(times):
            self._alarm.set(times[number])
        self._dispatch()

    def _dispatch(self) -> None:
        waiting, idle = self._waiting, self._idle
        while waiting and idle:
            caller = idle.pop()
            if caller.is_open:
                self._send(caller, waiting.popleft())
        for _ in range(min(len(waiting), self._most - len(self._callers)) - self._opening):
            self._spawn()

    def _free(self, caller: Caller) -> None:
        self._idle.append(caller)
        if self._waiting:
            self._dispatch()

    def _replace(self, delay_s: float) -> None:
        if self._waiting or not self._callers:
            super()._replace(delay_s)

    def _is_finished(self, now: float) -> bool:
        return self._next == len(self._times) and self._busy == 0 and not self._waiting and now >= self._end

    def _close(self) -> None:
        now = time.monotonic()
        if hasattr(self, "_alarm"):
            self._alarm.close()
        for due in (*self._waiting, *self._times[self._next :]):
            self._outcomes.add(due, now, Kind.UNANSWERED)
        super()._close()
