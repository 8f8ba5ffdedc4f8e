"""The asyncio shell around the batch queue: requests in, runs of a session out.

A batch is cut only when a slot of the session is free. So batches form exactly
while the session is busy: nobody waits while it is idle, and under load it runs
full ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from infold.errors import DeadlineExceededError, InvalidInputError, SessionError
from infold.runtime import Batching
from infold.serving.batch_queue import BatchQueue, Ticket
from infold.serving.events import Observer
from infold.tensors import Array, Tensors

__all__ = ["Batcher"]

RunFunction = Callable[[Tensors, Sequence[str] | None], dict[str, Array]]


@dataclass(eq=False, slots=True)
class _Call:
    tensors: Tensors
    outputs: Sequence[str] | None
    answer: asyncio.Future[dict[str, Array]]


class Batcher:
    """Joins requests into runs of one session.

    Args:
        name: Model and version, for the observer.
        run: Runs tensors; called in a worker thread.
        batching: How requests share a run.
        joinable: False runs every request by itself.
        slots: Runs that may be under way at once.
        observer: Told of every run.
    """

    def __init__(
        self,
        name: tuple[str, int],
        run: RunFunction,
        batching: Batching,
        *,
        joinable: bool,
        slots: int,
        observer: Observer,
    ) -> None:
        self._name = name
        self._run = run
        self._max_rows = batching.max_rows
        self._joinable = joinable
        self._queue: BatchQueue[_Call] = BatchQueue(
            batching.max_rows if joinable else 1,
            batching.max_delay_s if joinable else 0.0,
            batching.capacity_rows,
        )
        self._free_slots = slots
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix=f"infold-{name[0]}")
        self._observer = observer
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()

    @property
    def waiting_rows(self) -> int:
        """Rows in the queue."""
        return self._queue.rows

    async def submit(
        self,
        tensors: Tensors,
        rows: int,
        outputs: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> dict[str, Array]:
        """Wait for a turn and return the answer; leaving early gives the place up.

        Raises:
            InvalidInputError: More rows than one run may have.
            QueueFullError: No room to wait.
            DeadlineExceededError: The answer did not come in time.
            SessionError: The run failed for this request alone.
        """
        if self._joinable and rows > self._max_rows:
            raise InvalidInputError(
                "inputs", f"{rows} rows given, one request takes at most {self._max_rows}"
            )
        loop = asyncio.get_running_loop()
        call = _Call(tensors, outputs, loop.create_future())
        key = _key(tensors, outputs)
        ticket = Ticket(call, rows if self._joinable else 1, key, loop.time(), deadline)
        self._queue.offer(ticket)
        self._pump()
        try:
            async with asyncio.timeout_at(deadline):
                return await call.answer
        except TimeoutError as late:
            raise DeadlineExceededError(loop.time() - ticket.arrived) from late
        finally:
            self._queue.withdraw(ticket)

    async def close(self) -> None:
        """Finish what waits and what runs, then end the worker threads."""
        while self._running or len(self._queue):
            self._pump()
            await asyncio.gather(*self._running, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        self._threads.shutdown(wait=False)

    def _pump(self) -> None:
        """Start every run that is due and for which there is a slot."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._free_slots:
            now = loop.time()
            batch, _ = self._queue.take(now)  # who has expired is told by the timeout in submit
            if not batch:
                due = self._queue.due()
                if due is not None:
                    self._timer = loop.call_at(due, self._pump)
                return
            for ticket in batch:
                self._observer.waited(*self._name, now - ticket.arrived)
            self._free_slots -= 1
            task = loop.create_task(self._serve(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _serve(self, batch: list[Ticket[_Call]]) -> None:
        try:
            try:
                await self._run_together(batch)
            except SessionError as failure:
                if len(batch) == 1:
                    _fail(batch[0], failure)
                    return
                self._observer.batch_failed(*self._name, len(batch))
                for ticket in batch:  # one bad request must not fail its neighbours
                    try:
                        await self._run_together([ticket])
                    except SessionError as own:
                        _fail(ticket, own)
        except BaseException as failure:
            for ticket in batch:
                _fail(ticket, failure)
            raise
        finally:
            self._free_slots += 1
            self._pump()

    async def _run_together(self, batch: list[Ticket[_Call]]) -> None:
        loop = asyncio.get_running_loop()
        calls = [ticket.payload for ticket in batch]
        rows = [ticket.rows for ticket in batch]
        started = time.perf_counter()
        answers = await loop.run_in_executor(self._threads, self._compute, calls, rows)
        self._observer.batch_ran(*self._name, len(batch), sum(rows), time.perf_counter() - started)
        for call, answer in zip(calls, answers, strict=True):
            if not call.answer.done():
                call.answer.set_result(answer)

    def _compute(self, calls: Sequence[_Call], rows: Sequence[int]) -> list[dict[str, Array]]:
        """Join, run, split; in a worker thread."""
        if len(calls) == 1:
            return [self._run(calls[0].tensors, calls[0].outputs)]
        first = calls[0].tensors
        joined = {name: np.concatenate([call.tensors[name] for call in calls]) for name in first}
        results = self._run(joined, calls[0].outputs)
        for name, array in results.items():
            if array.shape[:1] != (sum(rows),):
                detail = f"output '{name}' has {array.shape[:1]} rows for {sum(rows)} rows of input"
                raise SessionError(self._name[0], detail)
        answers, start = [], 0
        for count in rows:
            answers.append({name: array[start : start + count] for name, array in results.items()})
            start += count
        return answers


def _fail(ticket: Ticket[_Call], failure: BaseException) -> None:
    if not ticket.payload.answer.done():
        ticket.payload.answer.set_exception(failure)


def _key(tensors: Tensors, outputs: Sequence[str] | None) -> Hashable:
    """Only requests of equal dtypes, trailing shapes and wanted outputs share a run."""
    wanted = None if outputs is None else tuple(outputs)
    return wanted, tuple((name, a.dtype.str, a.shape[1:]) for name, a in sorted(tensors.items()))
