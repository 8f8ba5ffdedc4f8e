"""The states of a version, and the thing that is served.

    LOADING -> READY -> DRAINING -> UNLOADED
    LOADING -> FAILED

READY is published after it is true, DRAINING before it begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from enum import StrEnum

from infold.errors import InvalidInputError
from infold.runtime import Session
from infold.serving.batcher import Batcher
from infold.serving.repository import ModelVersion
from infold.tensors import Array, Signature, Tensors

__all__ = ["Servable", "State"]


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
    State.FAILED: (State.LOADING,),
}


class Servable:
    """One version being served: its state, and once loaded its session and batcher.

    Attributes:
        version: What it is.
        state: Where it is in its life.
        reason: Why it failed; empty otherwise.
    """

    def __init__(self, version: ModelVersion) -> None:
        self.version = version
        self.state = State.LOADING
        self.reason = ""
        self._session: Session | None = None
        self._batcher: Batcher | None = None
        self._leases = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def signature(self) -> Signature:
        """The model's inputs and outputs; only while it is loaded."""
        assert self._session is not None
        return self._session.signature

    @property
    def waiting_rows(self) -> int:
        """Rows in its queue."""
        return self._batcher.waiting_rows if self._batcher else 0

    def to(self, state: State, reason: str = "") -> None:
        """Change the state; an illegal transition is a mistake of ours."""
        assert state in LEGAL[self.state], f"{self.state} -> {state}"
        self.state, self.reason = state, reason

    def attach(self, session: Session, batcher: Batcher) -> None:
        """Give it what it runs on."""
        self._session, self._batcher = session, batcher

    def hold(self) -> None:
        """Count one more user; it is not unloaded before all have let go."""
        self._leases += 1
        self._unused.clear()

    def let_go(self) -> None:
        """Count one user less."""
        self._leases -= 1
        if self._leases == 0:
            self._unused.set()

    async def infer(
        self, tensors: Tensors, outputs: Sequence[str] | None = None, deadline: float | None = None
    ) -> dict[str, Array]:
        """Answer one request.

        Args:
            tensors: All inputs by name.
            outputs: Outputs wanted, in that order; None means all.
            deadline: Latest time of the event loop's clock for the answer.

        Raises:
            InvalidInputError: The tensors do not fit the signature.
            QueueFullError, DeadlineExceededError: As named.
            SessionError: onnxruntime failed on this very request.
        """
        assert self._session is not None
        assert self._batcher is not None
        signature = self._session.signature
        signature.check(tensors)
        rows = 1
        if signature.is_batched and tensors:
            rows = _common_rows(tensors)
        return await self._batcher.submit(tensors, rows, outputs, deadline)

    async def drain(self) -> None:
        """Wait until nobody uses it, then let session and batcher go."""
        await self._unused.wait()
        if self._batcher is not None:
            await self._batcher.close()
        self._session = self._batcher = None


def _common_rows(tensors: Tensors) -> int:
    lengths = {name: int(array.shape[0]) for name, array in tensors.items()}
    first, rows = next(iter(lengths.items()))
    for name, length in lengths.items():
        if length != rows:
            raise InvalidInputError(f"input '{name}'", f"has {length} rows, but '{first}' has {rows}")
    return rows
