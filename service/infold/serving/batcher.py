"""From a request to its answer: where it is decoded, joined with others, run and encoded.

Three ways, chosen by the model's plan. What is over sooner than another thread
would have begun is done on the event loop. What is not worth joining is decoded,
run and encoded in one go by a runner. The rest waits in a queue until cores are
free and then runs together: batches form exactly while all cores are busy, and
nobody waits while one is idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np

from infold.errors import (
    AbandonedError,
    DeadlineExceededError,
    InfoldError,
    InvalidInputError,
    QueueFullError,
    SessionError,
)
from infold.runtime import Batching, Stop
from infold.serving.batch_queue import BatchQueue, Ticket
from infold.serving.calls import (
    Call,
    KeptRun,
    RunFunction,
    SharedRun,
    TimedRun,
    all_encoded,
    bare,
    earlier,
    key_of,
    named,
)
from infold.serving.dispatch import Lane
from infold.serving.events import Observer, Spent
from infold.serving.inline import InlineRuns
from infold.serving.joining import common_rows, joined, padded_rows, parts, split
from infold.serving.pace import Pace
from infold.serving.plan import Plan
from infold.serving.runners import Runners, clock
from infold.serving.sampling import Ran
from infold.serving.shadow import Shadow
from infold.serving.took import Took
from infold.serving.work import Asked, Work
from infold.tensors import Array, Signature, Tensors

__all__ = ["Batcher", "Left", "RunFunction"]

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

KNOWN_SHAPES = 1024
# What a run of more rows, and than are joined, took of memory is given back after it.
USUAL_ROWS = 8

# Returns once whoever asked has left.
Left = Callable[[], Awaitable[None]]


class Batcher:
    """Answers requests with the sessions of one model.

    Args:
        name: Model and version, for the observer.
        signature: The model's inputs and outputs.
        run: Runs tensors on the plan's cores; called in a runner, or on the event loop.
        batching: How requests share a run.
        plan: What to run with.
        runners: Threads shared with other models.
        observer: Told of every run, on the event loop.
        run_wide: Runs tensors on all cores.
        shadow: What a share of the runs is repeated on; None for nothing.
    """

    def __init__(
        self,
        name: tuple[str, int],
        signature: Signature,
        run: RunFunction,
        batching: Batching,
        plan: Plan,
        runners: Runners[Call],
        observer: Observer,
        run_wide: RunFunction | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self._name = name
        self._shadow = shadow
        self._signature = signature
        self._run, self._run_wide = run, run_wide
        self._batching = batching
        self._plan = plan
        self._runners = runners
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._inline = InlineRuns(plan.inline_rows, run)
        self._joins = signature.is_batched and plan.join_rows > 1
        self._pace = Pace(plan.runs, plan.join_rows if self._joins else 1)
        self._pending: set[asyncio.Future[Any]] = set()
        self._rows_of: dict[Hashable, int] = {}  # of shapes that were found to fit
        self._queue: BatchQueue[Call] = BatchQueue(
            plan.join_rows if self._joins else 1,
            batching.max_delay_s if self._joins else 0.0,
            batching.capacity_rows,
            batching.preferred_rows,
        )
        wide_cores = plan.wide_cores if run_wide is not None else 0
        self._running = runners.add(
            self._queue, self._execute, cores=plan.cores, runs=plan.runs, wide_cores=wide_cores
        )
        self._undecoded: BatchQueue[Call] = BatchQueue(1, 0.0, batching.capacity_rows)
        self._decoding = runners.add(self._undecoded, self._decode, runs=runners.cores)

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue; a request that is not decoded yet counts as one."""
        return self._queue.rows + self._undecoded.rows

    @property
    def waiting_requests(self) -> int:
        """Requests in the queue."""
        return len(self._queue) + len(self._undecoded)

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        return len(self._pending)

    @property
    def retry_after_s(self) -> int:
        """After how many seconds those that wait now are likely through."""
        return self._pace.retry_after_s(self.waiting_rows)

    @property
    def shadow_problem(self) -> str:
        """Why nothing is repeated on its shadow, if it should be."""
        return "" if self._shadow is None else self._shadow.problem

    def check_room(self, deadline: float) -> None:
        """Return if there is room, and as far as is known time, for an answer until then.

        Raises:
            QueueFullError, QueueTooLongError: There is not.
        """
        if rows := self.waiting_rows:
            self._pace.check_room(rows, self._batching.capacity_rows, deadline - clock())

    async def answer(
        self, work: Work[Answer], deadline: float | None = None, left: Left | None = None
    ) -> Answer:
        """Answer a request; leaving early gives its place up.

        Args:
            work: The request.
            deadline: Latest time for the answer, in seconds of `clock`.
            left: Returns once nobody waits for the answer any more.

        Raises:
            AbandonedError: Nobody does.
            InvalidInputError: It does not fit the model, or has more rows than one run may have.
            QueueFullError: No room to wait.
            DeadlineExceededError: The answer did not come in time, or would not.
            SessionError: The run failed for this request alone.
        """
        asked, rows, decode_s = None, 1, 0.0
        if work.is_cheap:
            began = time.perf_counter()
            asked = work.decode()
            rows = self._checked(asked)
            decode_s = time.perf_counter() - began
            if (answer := self._answered_here(work, asked, rows, decode_s)) is not None:
                return answer
        future: asyncio.Future[Answer] = self._loop.create_future()
        call = Call(work, future, asked, rows, clock(), decode_s=decode_s)
        if asked is None and self._joins:
            lane, ticket = self._decoding, Ticket(call, 1, None, call.arrived, deadline)
        else:
            lane, ticket = self._running, self._ticket(call, earlier(deadline, call))
        self._offer(lane, ticket)
        if ticket.deadline is not None and ticket.deadline != deadline:
            self._expire_at(ticket.deadline, call)
        self._pending.add(future)
        watch = None if left is None else self._watch(left, future)
        try:
            async with asyncio.timeout_at(deadline):
                return await future
        except TimeoutError as late:
            raise DeadlineExceededError(clock() - call.arrived) from late
        finally:
            for each in (watch, call.timer):
                if each is not None:
                    each.cancel()
            self._pending.discard(future)
            call.answer = None
            if not call.is_answered:
                self._give_up(call)
            del future, watch, each

    @property
    def is_quick(self) -> bool:
        """Small requests are run on the event loop."""
        return not self._inline.is_over

    def answer_at_once(self, work: Work[Answer]) -> Answer | None:
        """As `answer`, on the event loop and before this returns; None where that cannot be.

        Raises:
            InvalidInputError, SessionError: As `answer`.
        """
        if self._inline.is_over or self._pending or not work.is_cheap:
            return None
        began = time.perf_counter()
        asked = work.decode()
        rows = self._checked(asked)
        return self._answered_here(work, asked, rows, time.perf_counter() - began)

    async def close(self) -> None:
        """Finish what waits and what runs."""
        while self._pending:
            await asyncio.wait(self._pending)
            await asyncio.sleep(0)
        self._inline.close()
        self._runners.remove(self._running)
        self._runners.remove(self._decoding)
        if self._shadow is not None:
            self._shadow.close()
        # This object is in a cycle, and a runner may still know its last job: the sessions go at once.
        self._run, self._run_wide = _gone, None

    # -- on the event loop ------------------------------------------------------------------------

    def _answered_here(self, work: Work[Answer], asked: Asked, rows: int, decode_s: float) -> Answer | None:
        """The answer by a run on the event loop; None where a runner is to run it."""
        inline = self._inline
        if not inline.allows(rows):
            return None
        results = inline.run(asked.tensors, asked.outputs)
        if inline.is_over:
            about = {"model": self._name[0], "seconds": inline.seconds}
            log.warning("runs moved off the event loop", extra=about)
        if results is None:
            return None
        if self._shadow is not None and self._shadow.picks():  # once the answer is on its way
            self._loop.call_soon(self._shadow.offer, Ran(asked.tensors, asked.outputs, dict(results)))
        began = time.perf_counter()
        try:
            answer = work.encode(results)
        except Exception:
            spent = Spent(decode_s, inline.seconds, time.perf_counter() - began)
            self._observer.waited(*self._name, 0.0)
            self._observer.batch_ran(*self._name, 0, rows, spent)
            raise
        work.took = Took(rows, decode_s, 0.0, 0.0, inline.seconds, time.perf_counter() - began)
        self._observer.ran_at_once(*self._name, work.took)
        return answer

    def _watch(self, left: Left, answer: asyncio.Future[Any]) -> asyncio.Task[None]:
        """Fail the answer as soon as nobody waits for it."""

        async def watch() -> None:
            await left()
            if not answer.done():
                answer.set_exception(AbandonedError())

        return self._loop.create_task(watch())

    def _expire_at(self, deadline: float, call: Call) -> None:
        """Wait for its run until then; once that has begun, only the service's own deadline counts."""

        def expire() -> None:
            if not call.is_taken and call.answer is not None and not call.answer.done():
                call.answer.set_exception(DeadlineExceededError(clock() - call.arrived))

        if call.is_awaited:
            call.timer = self._loop.call_at(deadline, expire)

    def _give_up(self, call: Call) -> None:
        """Nobody waits for this request any more: its place, and a run for it alone, are free again."""
        call.is_given_up = True
        ticket, call.ticket = call.ticket, None
        assert ticket is not None
        if self._runners.withdraw(self._running, ticket) or self._runners.withdraw(self._decoding, ticket):
            return
        if call.run is not None and all(each.is_given_up for each in call.run.calls):
            call.run.stop.set()

    def _deliver(
        self, calls: Sequence[Call], answers: Sequence[Any], waits: Sequence[float], runs: Sequence[SharedRun]
    ) -> None:
        for call, answer in zip(calls, answers, strict=True):
            call.is_answered = True
            call.run = call.ticket = None  # which hold it: a cycle, and all of the body with it
            if call.answer is None or call.answer.done():
                continue
            if isinstance(answer, BaseException):
                call.answer.set_exception(bare(answer))
            else:
                call.answer.set_result(answer)
        for wait in waits:
            self._observer.waited(*self._name, wait)
        for run in runs:
            answered, rows = sum(call.has_result for call in run.calls), sum(call.rows for call in run.calls)
            self._observer.batch_ran(*self._name, answered, rows, run.spent)
            self._pace.ran(rows, run.spent.total_s)

    # -- anywhere ---------------------------------------------------------------------------------

    def _checked(self, asked: Asked) -> int:
        """Rows of a request that fits the model; 1 where nothing can be joined."""
        key = tuple([(name, array.dtype, array.shape) for name, array in asked.tensors.items()])
        rows = self._rows_of.get(key, 0)
        if rows:
            return rows
        self._signature.check(asked.tensors)
        if not self._signature.is_batched or not asked.tensors:
            return 1
        rows = common_rows(asked.tensors)
        most = self._batching.max_rows
        if rows > most > 1 and not self._batching.rows_are_independent:
            raise InvalidInputError("inputs", f"{rows} rows given, one request takes at most {most}")
        if len(self._rows_of) < KNOWN_SHAPES:
            self._rows_of[key] = rows
        return rows

    def _offer(self, lane: Lane[Call], ticket: Ticket[Call]) -> None:
        """Let a request wait in this place."""
        if ticket.deadline is not None and (ahead := lane.queue.rows):
            self._pace.check_time(ahead, ticket.deadline - clock())
        ticket.payload.ticket = ticket
        try:
            self._runners.offer(lane, ticket)
        except QueueFullError as full:
            ticket.payload.ticket = None
            full.retry_after_s = self.retry_after_s
            raise

    def _ticket(self, call: Call, deadline: float | None) -> Ticket[Call]:
        rows = max(1, call.rows)  # a request without rows takes a place too
        key = key_of(call.asked) if self._joins and call.asked is not None else None
        return Ticket(call, rows, key, call.arrived, deadline)

    # -- in a runner ------------------------------------------------------------------------------

    def _decode(self, tickets: list[Ticket[Call]], is_wide: bool) -> None:
        """Decode one request and let it wait for its run."""
        del is_wide
        (ticket,) = tickets
        call = ticket.payload
        if call.is_given_up:
            return
        try:
            call.rows = self._checked(call.decode())
            deadline = earlier(ticket.deadline, call)
            if deadline != ticket.deadline and deadline is not None:
                self._loop.call_soon_threadsafe(self._expire_at, deadline, call)
            ticket = self._ticket(call, deadline)
            self._offer(self._running, ticket)
            if ticket.payload.is_given_up:  # meanwhile, and maybe before it had this place
                self._runners.withdraw(self._running, ticket)
                call.ticket = None
        except Exception as failure:
            self._answered([call], [failure])

    def _execute(self, tickets: list[Ticket[Call]], is_wide: bool) -> None:
        """Run a batch and send everyone an answer or an error."""
        calls, taken = [ticket.payload for ticket in tickets], clock()
        for call in calls:
            call.take(taken)
        run = self._run_wide if is_wide and self._run_wide is not None else self._run
        runs: list[SharedRun] = []
        try:
            answers: list[Any] = self._compute(calls, run, runs)
        except SessionError as failure:
            is_alone = len(calls) == 1 or all(call.is_given_up for call in calls)
            answers = [failure] * len(calls) if is_alone else self._one_by_one(calls, run, runs)
        except Exception as failure:
            if not isinstance(failure, InfoldError):
                log.exception("a run was lost", extra=named(calls))
            answers = [failure] * len(calls)
        waits = [call.queue_s for call in calls if call.run is not None]
        self._answered(calls, answers, waits, runs)
        if self._shadow is not None:
            self._shadow.offer_all(runs)

    def _answered(
        self,
        calls: Sequence[Call],
        answers: Sequence[Any],
        waits: Sequence[float] = (),
        runs: Sequence[SharedRun] = (),
    ) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(self._deliver, calls, answers, waits, runs)

    def _one_by_one(self, calls: list[Call], run: RunFunction, runs: list[SharedRun]) -> list[Any]:
        """One bad request must not fail its neighbours."""
        answers: list[Any] = []
        for call in calls:
            try:
                answers += self._compute([call], run, runs)
            except Exception as failure:
                answers.append(failure)
        model, version = self._name
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._observer.batch_failed, model, version, len(calls))
        return answers

    def _compute(self, calls: list[Call], run: RunFunction, runs: list[SharedRun]) -> list[Any]:
        """Decode what is not decoded yet, join, run, split and encode; what ran is added to `runs`."""
        for call in calls:
            if call.asked is None:
                call.rows = self._checked(call.decode())
                if (deadline := earlier(None, call)) is not None and deadline <= clock():
                    raise DeadlineExceededError(clock() - call.arrived)
        usual = max(self._plan.join_rows, USUAL_ROWS)
        shared = SharedRun(calls, Stop(is_large=sum(call.rows for call in calls) > usual))
        spent = shared.spent
        for call in calls:
            call.run = shared
            spent.input_s += call.decode_s
        asked = [call.asked for call in calls if call.asked is not None]
        wanted, stop = asked[0].outputs, shared.stop
        timed = TimedRun(run, spent)
        if self._shadow is not None and self._shadow.picks():
            timed = KeptRun(run, shared)
        most, counts = self._batching.max_rows, [call.rows for call in calls]
        joined_s: float | None = None
        if len(calls) == 1 and self._signature.is_batched and counts[0] > most > 1:
            pieces = [timed(part, wanted, stop) for part in parts(asked[0].tensors, counts[0], most)]
            results = [{name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}]
            joined_s = 0.0
        else:
            rows = padded_rows(sum(counts), self._batching.pad_to) if self._signature.is_batched else 0
            if len(calls) == 1 and rows in (0, counts[0]):
                results = [timed(asked[0].tensors, wanted, stop)]
            else:
                began = time.perf_counter()
                inputs = joined([each.tensors for each in asked], rows)
                joined_s = time.perf_counter() - began
                spent.input_s += joined_s
                results = split(self._name[0], timed(inputs, wanted, stop), counts, rows)
        answers = all_encoded(calls, results, spent, timed.ended, joined_s)
        runs.append(shared)
        return answers


def _gone(tensors: Tensors, outputs: Sequence[str] | None, stop: Stop | None) -> dict[str, Array]:
    """In the place of a session that was let go; whoever is left has been given up."""
    raise AbandonedError
