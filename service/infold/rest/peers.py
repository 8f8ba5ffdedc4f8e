"""Asking every worker of the service at once.

A worker asks through its `Peers`; the supervisor's `Exchange` passes the question
on and puts the answers together. A process that is alone has the same `Peers` and
gathers from itself, so callers need not know. Neither knows what is asked.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from infold.rest.channel import Answer, Ask, Gather, Gathered, Message

__all__ = ["Exchange", "Handler", "Peers"]

log = logging.getLogger(__name__)

Handler = Callable[[object], Awaitable[object]]
Send = Callable[[Message], None]

PATIENCE_S = 1.0  # beyond a gathering's own time, in case it is the supervisor that does not answer


class Peers:
    """All workers of the service, this one among them.

    Args:
        worker: The number of this one.
        workers: How many there are.
        send: The way to the supervisor; None where there is none.
        earlier: What this worker's predecessor answered last, by topic, and on shared topics anyone.
    """

    def __init__(
        self,
        worker: int = 0,
        workers: int = 1,
        send: Send | None = None,
        earlier: Mapping[str, object] | None = None,
    ) -> None:
        self.worker = worker
        self.workers = workers
        self.earlier = earlier or {}
        self._send = send
        self._handlers: dict[str, Handler] = {}
        self._ids = itertools.count(1)
        self._gathering: dict[int, asyncio.Future[list[object]]] = {}
        self._answering: set[asyncio.Task[object]] = set()

    def on(self, topic: str, handler: Handler) -> None:
        """Let a handler answer a topic; what it returns must be JSON, and not None.

        A handler that raises counts as no answer, so known errors belong into the answer. One that
        takes too long is not cancelled. If the supervisor dies meanwhile a handler may be asked the
        same again, so twice must do no more than once.
        """
        self._handlers[topic] = handler

    async def gather(
        self,
        topic: str,
        payload: object = None,
        timeout_s: float = 1.0,
        *,
        kept: bool = False,
        shared: bool = False,
    ) -> list[object]:
        """What every worker answers, in worker order, this one's answer included.

        Args:
            topic: What is asked.
            payload: Given to each handler; JSON.
            timeout_s: How long to wait for the slowest.
            kept: True puts a worker's last answer in the place of one that does not come.
            shared: True hands the last answer to each worker that starts later, and asks it what it
                missed meanwhile; the answer of one that is down is that of the others.

        Returns:
            One answer a worker; None for one that failed or took too long, or is down.
        """
        if self._send is not None:
            number = next(self._ids)
            future: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()
            self._gathering[number] = future
            try:
                self._send(Gather(number, topic, payload, timeout_s, kept, shared))
                async with asyncio.timeout(timeout_s + PATIENCE_S):
                    return await future
            except (TimeoutError, ConnectionError):
                log.warning("supervisor silent", extra={"topic": topic})
            finally:
                del self._gathering[number]
        answers: list[object] = [None] * self.workers
        own = self._begin(self._own_answer(topic, payload))
        if (await asyncio.wait({own}, timeout=timeout_s))[0]:
            answers[self.worker] = own.result()
        return answers

    def receive(self, message: Ask | Gathered) -> None:
        """Take what came from the supervisor."""
        if isinstance(message, Gathered):
            future = self._gathering.get(message.id)
            if future is not None and not future.done():
                future.set_result(message.answers)
            return
        self._begin(self._answer(message))

    async def settled(self) -> None:
        """Return once all that was asked so far is answered."""
        if self._answering:
            await asyncio.wait(self._answering)

    def left_alone(self) -> None:
        """The supervisor is gone; whoever gathers gets this worker's answer."""
        self._send = None
        for future in self._gathering.values():
            if not future.done():
                future.set_exception(ConnectionError())

    def _begin(self, answering: Coroutine[object, object, object]) -> asyncio.Task[object]:
        """Answer, to the end even if nobody waits that long."""
        task = asyncio.get_running_loop().create_task(answering)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        return task

    async def _answer(self, ask: Ask) -> None:
        answer = await self._own_answer(ask.topic, ask.payload)
        if self._send is not None:
            self._send(Answer(ask.id, answer))

    async def _own_answer(self, topic: str, payload: object) -> object:
        handler = self._handlers.get(topic)
        if handler is None:
            return None
        try:
            return await handler(payload)
        except Exception:
            log.exception("peer handler failed", extra={"topic": topic})
            return None


class Cancellable(Protocol):
    """A timer."""

    def cancel(self) -> None:
        """It will not go off."""


@dataclass(eq=False, slots=True)
class _Gathering:
    asker: int
    request: Gather
    answers: list[object]
    waiting: set[int]
    asked: set[int]  # but for those that are gone, whose successors are asked when they join
    timer: Cancellable | None = field(default=None)


class Exchange:
    """The supervisor's side: questions of one worker to all, answers back to the one.

    Args:
        workers: How many there are.
        call_later: Calls a function after so many seconds.
    """

    def __init__(self, workers: int, call_later: Callable[[float, Callable[[], None]], Cancellable]) -> None:
        self._call_later = call_later
        self._members: dict[int, Send] = {}
        self._kept: list[dict[str, object]] = [{} for _ in range(workers)]
        self._shared: dict[str, tuple[int, object]] = {}  # with the gathering it is of
        self._missed: dict[int, list[Gather]] = {}  # by workers that are starting
        self._ids = itertools.count(1)
        self._open: dict[int, _Gathering] = {}

    def earlier(self, worker: int) -> Mapping[str, object]:
        """What a worker answered last, and any on shared topics, by topic, as far as it is kept.

        For one that starts now: what is asked of all on shared topics until it joins, or is not
        answered yet, it is asked when it does.
        """
        unanswered = (self._open[number].request for number in sorted(self._open))
        self._missed[worker] = [request for request in unanswered if request.shared]
        return {**self._kept[worker], **{topic: answer for topic, (_, answer) in self._shared.items()}}

    def join(self, worker: int, send: Send) -> None:
        """Ask this worker, too, from now on, and what it has missed."""
        self._members[worker] = send
        for request in self._missed.pop(worker, ()):
            send(Ask(next(self._ids), request.topic, request.payload))

    def leave(self, worker: int) -> None:
        """Wait for this worker no longer."""
        self._members.pop(worker, None)
        self._missed.pop(worker, None)
        for number, gathering in list(self._open.items()):
            gathering.asked.discard(worker)
            self._heard(number, worker, None)

    def gather(self, asker: int, request: Gather) -> None:
        """Ask every member; the asker is sent what they said when the last has, or time is up."""
        number = next(self._ids)
        there = self._members.keys()
        gathering = _Gathering(asker, request, [None] * len(self._kept), set(there), set(there))
        self._open[number] = gathering
        if request.shared:
            for missed in self._missed.values():
                missed.append(request)
        gathering.timer = self._call_later(request.timeout_s, lambda: self._finish(number))
        for send in list(self._members.values()):
            send(Ask(number, request.topic, request.payload))
        if not gathering.waiting:
            self._finish(number)

    def answered(self, worker: int, answer: Answer) -> None:
        """A member said something; too late is forgotten."""
        self._heard(answer.id, worker, answer.answer)

    def _heard(self, number: int, worker: int, answer: object) -> None:
        gathering = self._open.get(number)
        if gathering is None or worker not in gathering.waiting:
            return
        gathering.waiting.discard(worker)
        gathering.answers[worker] = answer
        if gathering.request.kept and answer is not None:
            self._kept[worker][gathering.request.topic] = answer
        if gathering.request.shared and answer is not None:
            topic = gathering.request.topic
            if number >= self._shared.get(topic, (0, None))[0]:  # not of one who is slow with an earlier one
                self._shared[topic] = number, answer
        if not gathering.waiting:
            self._finish(number)

    def _finish(self, number: int) -> None:
        gathering = self._open.pop(number)
        if gathering.timer is not None:
            gathering.timer.cancel()
        asker = self._members.get(gathering.asker)
        if asker is None:
            return
        answers = gathering.answers
        if gathering.request.kept:
            topic = gathering.request.topic
            answers = [
                self._kept[worker].get(topic) if answer is None else answer
                for worker, answer in enumerate(answers)
            ]
        latest = self._shared.get(gathering.request.topic)
        if latest is not None and latest[0] == number:
            answers = [
                latest[1] if answer is None and worker not in gathering.asked else answer
                for worker, answer in enumerate(answers)
            ]
        asker(Gathered(gathering.request.id, answers))
