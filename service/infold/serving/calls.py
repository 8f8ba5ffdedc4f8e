"""A request on its way through a batcher, and the run that it shares with others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from infold.errors import InfoldError
from infold.runtime import Stop
from infold.serving.batch_queue import Ticket
from infold.serving.events import Spent
from infold.serving.sampling import Ran
from infold.serving.took import Took
from infold.serving.work import Asked, Work
from infold.tensors import Array, Tensors

__all__ = [
    "Call",
    "KeptRun",
    "RunFunction",
    "SharedRun",
    "TimedRun",
    "all_encoded",
    "bare",
    "earlier",
    "key_of",
    "named",
]

RunFunction = Callable[[Tensors, Sequence[str] | None, Stop | None], dict[str, Array]]


@dataclass(eq=False, slots=True)
class Call:
    """A request between its arrival and its answer.

    Attributes:
        answer: None once nobody waits for it: an error in it would hold the frames that hold this.
        asked: None until it is decoded.
        ticket: Its place in the queue where it waits now.
        run: Switch of the run it is in, with everyone who waits for that.
        is_given_up: Nobody waits for it any more.
        is_taken: A runner has begun its run.
        is_answered: A runner has answered it.
        decode_s: Seconds it took to decode it.
        queue_s: Seconds it waited for its run, decoding left out.
        timer: Ends its wait for a run where the request itself says how long that may be.
    """

    work: Work[Any]
    answer: asyncio.Future[Any] | None
    asked: Asked | None = None
    rows: int = 1
    arrived: float = 0.0
    ticket: Ticket[Call] | None = None
    run: SharedRun | None = None
    is_given_up: bool = False
    is_taken: bool = False
    is_answered: bool = False
    decode_s: float = 0.0
    queue_s: float = 0.0
    timer: asyncio.TimerHandle | None = None

    @property
    def is_awaited(self) -> bool:
        """Whoever asked has no answer yet, and has not left."""
        return self.answer is not None and not self.answer.done()

    @property
    def has_result(self) -> bool:
        """Whoever asked gets what they asked for."""
        answer = self.answer
        return answer is not None and answer.done() and not answer.cancelled() and answer.exception() is None

    def take(self, now: float) -> None:
        """Its run begins; what is read on the event loop is read before it waits."""
        self.is_taken = True
        waited = now - self.arrived
        self.queue_s = waited if self.work.is_cheap else max(0.0, waited - self.decode_s)

    def decode(self) -> Asked:
        """Read it, and remember how long that took."""
        began = time.perf_counter()
        self.asked = self.work.decode()
        self.decode_s = time.perf_counter() - began
        return self.asked


@dataclass(eq=False, slots=True)
class SharedRun:
    """One run of the session, for all whose requests were joined in it.

    Attributes:
        calls: The requests.
        stop: Ends it early.
        spent: Where its time went.
        ran: What went in and came out, if it is to be repeated on a shadow.
    """

    calls: list[Call]
    stop: Stop
    spent: Spent = field(default_factory=Spent)
    ran: Ran | None = None


class TimedRun:
    """A run whose time is counted.

    Attributes:
        ended: When the last one did.
    """

    __slots__ = ("_run", "_spent", "ended")

    def __init__(self, run: RunFunction, spent: Spent) -> None:
        self._run = run
        self._spent = spent
        self.ended = 0.0

    def __call__(self, tensors: Tensors, outputs: Sequence[str] | None, stop: Stop) -> dict[str, Array]:
        """As the run itself."""
        began = time.perf_counter()
        try:
            return self._run(tensors, outputs, stop)
        finally:
            self.ended = time.perf_counter()
            self._spent.infer_s += self.ended - began


class KeptRun(TimedRun):
    """A run whose time is counted, and of which is kept what went in and came out."""

    __slots__ = ("_shared",)

    def __init__(self, run: RunFunction, shared: SharedRun) -> None:
        super().__init__(run, shared.spent)
        self._shared = shared

    def __call__(self, tensors: Tensors, outputs: Sequence[str] | None, stop: Stop) -> dict[str, Array]:
        """As the run itself."""
        results = super().__call__(tensors, outputs, stop)
        self._shared.ran = Ran(tensors, outputs, dict(results))
        return results


def bare(failure: BaseException) -> BaseException:
    """The error, and what caused it, without the frames of the runner: these hold requests, and the error.

    One that nobody foresaw keeps them, to be logged.
    """
    each: BaseException | None = failure
    while isinstance(failure, InfoldError) and each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return failure


def earlier(deadline: float | None, call: Call) -> float | None:
    """The deadline of a request that may have set itself one, once it is decoded."""
    if call.asked is None or call.asked.timeout_s is None:
        return deadline
    own = call.arrived + call.asked.timeout_s
    return own if deadline is None else min(deadline, own)


def encoded(call: Call, results: dict[str, Array]) -> Any:
    """The answer, or what was wrong with it: that is nobody else's of its run."""
    try:
        return call.work.encode(results)
    except Exception as failure:
        return failure


def all_encoded(
    calls: Sequence[Call],
    results: Sequence[dict[str, Array]],
    spent: Spent,
    ended: float,
    joined_s: float | None = None,
) -> list[Any]:
    """The answers of a run, or what was wrong with each, and where the time of each request went.

    Args:
        calls: Its requests.
        results: Of each of them.
        spent: Where the time of the run went; what this takes is added.
        ended: When the session was through.
        joined_s: What joining took, which `spent` has already; None for one request, run as it came.
    """
    since, batch_s = ended, 0.0
    if joined_s is not None:  # and splitting has just ended
        since = time.perf_counter()
        batch_s = joined_s + since - ended
    answers = []
    for call, own in zip(calls, results, strict=True):
        answers.append(encoded(call, own))
        now = time.perf_counter()
        times = (call.decode_s, call.queue_s, batch_s, spent.infer_s, now - since)
        call.work.took = Took(call.rows, *times)
        since = now
    spent.output_s += since - ended
    return answers


def named(calls: Sequence[Call]) -> dict[str, object]:
    """Whose requests they are, for a line of the log, which a runner writes for nobody in particular."""
    identities = [call.work.identity for call in calls]
    return {"request_id": identities[0]} if len(calls) == 1 else {"request_ids": identities}


def key_of(asked: Asked) -> Hashable:
    """Only requests of equal dtypes, trailing shapes and wanted outputs share a run."""
    wanted = None if asked.outputs is None else tuple(asked.outputs)
    return wanted, tuple((name, a.dtype.str, a.shape[1:]) for name, a in sorted(asked.tensors.items()))
