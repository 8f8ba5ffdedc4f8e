"""The states of a version, and the thing that is served.

    LOADING -> READY -> DRAINING -> UNLOADED
    LOADING -> FAILED -> UNLOADED

READY is published after it is true, DRAINING before it begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from infold.serving.batcher import Batcher, Left
from infold.serving.reading import Reading
from infold.serving.repository import ModelVersion
from infold.serving.work import Work
from infold.tensors import Signature

__all__ = ["Servable", "State"]

Answer = TypeVar("Answer")


class State(StrEnum):
    """Where a version is in its life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    UNLOADED = "unloaded"
    FAILED = "failed"


LEGAL: Mapping[State, tuple[State, ...]] = {
    State.LOADING: (State.READY, State.FAILED),
    State.READY: (State.DRAINING,),
    State.DRAINING: (State.UNLOADED,),
    State.UNLOADED: (State.LOADING,),
    State.FAILED: (State.LOADING, State.UNLOADED),
}


class Servable:
    """One version being served: its state, and once loaded its session and batcher.

    Attributes:
        version: What it is.
        state: Where it is in its life.
        reason: Why it failed, or why a changed file of it is not served; empty otherwise.
        reading: How its pictures and classes are read.
        runs: That it may have at once.
    """

    def __init__(self, version: ModelVersion) -> None:
        self.version = version
        self.state = State.LOADING
        self.reason = ""
        self.reading = Reading()
        self.runs = 0
        self._signature: Signature | None = None
        self._batcher: Batcher | None = None
        self._leases = 0
        self._unused: asyncio.Event | None = None  # while somebody waits for it

    @property
    def signature(self) -> Signature:
        """The model's inputs and outputs; only once it is loaded."""
        assert self._signature is not None
        return self._signature

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        return self._batcher.in_flight if self._batcher else 0

    @property
    def retry_after_s(self) -> int:
        """After how many seconds those that wait now are likely through."""
        return self._batcher.retry_after_s if self._batcher else 1

    def check_room(self, deadline: float) -> None:
        """Return if there is room, and as far as is known time, for an answer until then.

        Raises:
            QueueFullError, QueueTooLongError: There is not.
        """
        if self._batcher is not None:
            self._batcher.check_room(deadline)

    @property
    def waiting_rows(self) -> int:
        """Rows in its queue."""
        return self._batcher.waiting_rows if self._batcher else 0

    @property
    def waiting_requests(self) -> int:
        """Requests in its queue."""
        return self._batcher.waiting_requests if self._batcher else 0

    @property
    def remark(self) -> str:
        """What is to be said of it: why it failed, or what of it does not work although it answers."""
        return self.reason or (self._batcher.shadow_problem if self._batcher else "")

    def to(self, state: State, reason: str = "") -> None:
        """Change the state; an illegal transition is a mistake of ours."""
        assert state in LEGAL[self.state], f"{self.state} -> {state}"
        self.state, self.reason = state, reason

    def attach(self, signature: Signature, batcher: Batcher, reading: Reading, runs: int) -> None:
        """Give it what it runs on, how what it takes and gives is read, and how many runs it has at once."""
        self._signature, self._batcher, self.reading, self.runs = signature, batcher, reading, runs

    def __enter__(self) -> Servable:
        """Hold it: it is not unloaded before all who do have let go."""
        self._leases += 1
        return self

    def __exit__(self, *failure: object) -> None:
        """Let go."""
        self._leases -= 1
        if not self._leases and self._unused is not None:
            self._unused.set()

    async def answer(
        self, work: Work[Answer], deadline: float | None = None, left: Left | None = None
    ) -> Answer:
        """Answer one request.

        Args:
            work: The request.
            deadline: Latest time for the answer, in seconds of `runners.clock`.
            left: Returns once nobody waits for the answer any more.

        Raises:
            AbandonedError: Nobody does.
            InvalidInputError: It does not fit the signature.
            QueueFullError, DeadlineExceededError: As named.
            SessionError: onnxruntime failed on this very request.
        """
        assert self._batcher is not None
        return await self._batcher.answer(work, deadline, left)

    @property
    def is_quick(self) -> bool:
        """Its runs are short enough for the event loop."""
        return self._batcher is not None and self._batcher.is_quick

    def answer_at_once(self, work: Work[Answer]) -> Answer | None:
        """As `answer`, before this returns; None where the model takes longer, or others wait for it.

        Raises:
            InvalidInputError, SessionError: As `answer`.
        """
        assert self._batcher is not None
        return self._batcher.answer_at_once(work)

    async def drain(self) -> None:
        """Wait until nobody uses it, then let its batcher go, and its sessions with it."""
        self._unused = asyncio.Event()
        if self._leases:
            await self._unused.wait()
        if self._batcher is not None:
            await self._batcher.close()
        self._batcher = None
