"""A model that can be held up, requests for it, and a batcher that answers them."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from infold.errors import SessionError
from infold.runtime import Batching, Stop
from infold.serving import Asked, Batcher, Observer, Runners, SilentObserver, Work
from infold.serving.plan import Plan
from infold.tensors import Array, Signature, Tensors, TensorSpec

F32 = np.dtype(np.float32)
SIGNATURE = Signature((TensorSpec("x", F32, ("n",)),), (TensorSpec("y", F32, ("n",)),))


class FakeModel:
    """Doubles its input; can be held up, and fails on rows that hold 13."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.stops: list[Stop | None] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self._entered = threading.Event()

    async def entered(self) -> None:
        """Return once a run has begun, and forget it."""
        await asyncio.to_thread(self._entered.wait, 5)
        self._entered.clear()

    def __call__(
        self, tensors: Tensors, outputs: Sequence[str] | None, stop: Stop | None
    ) -> dict[str, Array]:
        self._entered.set()
        self.gate.wait(5)
        x = tensors["x"]
        self.batches.append(len(x))
        self.stops.append(stop)
        self.threads.add(threading.current_thread().name)
        try:
            assert not (x == 13).any()
        except AssertionError as native:  # as onnxruntime's own error stands behind a session's
            raise SessionError("fake", "13 is poison") from native
        return {"y": x * 2}


def batcher(
    runners: Runners[Any],
    model: FakeModel,
    plan: Plan | None = None,
    wide: FakeModel | None = None,
    observer: Observer | None = None,
    **limits: Any,
) -> Batcher:
    """A batcher of a fake model, joined as far as its limits allow unless a plan says otherwise."""
    chosen = Batching(**limits)
    plan = plan or Plan(1, 1, join_rows=chosen.max_rows)
    told = observer or SilentObserver()
    return Batcher(("fake", 1), SIGNATURE, model, chosen, plan, runners, told, wide)


def row(*values: float) -> Work[Array]:
    """A request, answered by its own output."""
    return work(lambda: Asked({"x": np.array(values, np.float32)}))


def work(decode: Any, *, is_cheap: bool = True) -> Work[Array]:
    """As `row`, of whatever it is decoded to."""
    return Work(decode, lambda results: results["y"], is_cheap)


async def begun(subject: Batcher) -> None:
    """Let a runner take what waits."""
    while subject.waiting_rows:
        await asyncio.sleep(0.001)


async def turns(count: int) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def settle() -> None:
    """Let everything that can happen on the loop happen."""
    await turns(10)
