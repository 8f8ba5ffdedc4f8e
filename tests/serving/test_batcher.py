import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from infold.errors import DeadlineExceededError, InvalidInputError, QueueFullError, SessionError
from infold.runtime import Batching
from infold.serving import Batcher, SilentObserver
from infold.tensors import Array, Tensors


class FakeModel:
    """Doubles its input; can be held up, and fails on rows that hold 13."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, tensors: Tensors, outputs: Sequence[str] | None) -> dict[str, Array]:
        self.gate.wait(5)
        x = tensors["x"]
        self.batches.append(len(x))
        if (x == 13).any():
            raise SessionError("fake", "13 is poison")
        return {"y": x * 2}


def batcher(model: FakeModel, **limits: float) -> Batcher:
    chosen = Batching(**limits)  # type: ignore[arg-type]
    return Batcher(("fake", 1), model, chosen, joinable=True, slots=1, observer=SilentObserver())


def row(*values: float) -> dict[str, Array]:
    return {"x": np.array(values, np.float32)}


async def settle() -> None:
    """Let everything that can happen on the loop happen."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_requests_that_come_while_the_session_is_busy_share_its_next_run() -> None:
    """The first runs alone at once; the others form one batch behind it, and each gets its own rows."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(model)
    first = asyncio.create_task(subject.submit(row(1), 1))
    await settle()
    rest = [asyncio.create_task(subject.submit(row(*range(n, 2 * n)), n)) for n in (1, 2, 3)]
    await settle()
    model.gate.set()
    assert (await first)["y"].tolist() == [2]
    assert [(await task)["y"].tolist() for task in rest] == [[2], [4, 6], [6, 8, 10]]
    assert model.batches == [1, 6]
    await subject.close()


async def test_one_bad_request_does_not_fail_its_neighbours() -> None:
    """A failed batch is run again one by one; only the culprit hears of it."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(model)
    tasks = [asyncio.create_task(subject.submit(row(value), 1)) for value in (0, 1, 13, 2)]
    await settle()
    model.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[2], SessionError)
    assert [a["y"].item() for a in answers if isinstance(a, dict)] == [0, 2, 4]
    await subject.close()


async def test_a_request_that_is_given_up_leaves_the_queue() -> None:
    """A caller that has gone takes no place in a run."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(model)
    busy = asyncio.create_task(subject.submit(row(1), 1))
    await settle()
    gone = asyncio.create_task(subject.submit(row(5, 6), 2))
    await settle()
    gone.cancel()
    await settle()
    assert subject.waiting_rows == 0
    model.gate.set()
    await busy
    assert model.batches == [1]
    await subject.close()


async def test_a_deadline_ends_the_wait_even_while_the_session_is_stuck() -> None:
    """Nobody waits for ever behind a run that hangs."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(model)
    busy = asyncio.create_task(subject.submit(row(1), 1))
    await settle()
    with pytest.raises(DeadlineExceededError):
        await subject.submit(row(2), 1, deadline=asyncio.get_running_loop().time() + 0.01)
    model.gate.set()
    await busy
    await subject.close()


async def test_the_queue_is_bounded_and_a_request_above_the_maximum_is_refused() -> None:
    """Too much at once is the caller's mistake, too much in all is the server's state."""
    model = FakeModel()
    model.gate.clear()
    subject = batcher(model, max_rows=4, capacity_rows=4)
    with pytest.raises(InvalidInputError, match="at most 4"):
        await subject.submit(row(*range(5)), 5)
    tasks = [asyncio.create_task(subject.submit(row(1, 2, 3), 3)) for _ in range(2)]
    await settle()
    with pytest.raises(QueueFullError):
        await subject.submit(row(1, 2, 3), 3)
    model.gate.set()
    await asyncio.gather(*tasks)
    await subject.close()


async def test_closing_answers_what_was_accepted() -> None:
    """Drain means finish, not drop."""
    model = FakeModel()
    subject = batcher(model, max_delay_s=0.05)
    tasks = [asyncio.create_task(subject.submit(row(value), 1)) for value in range(5)]
    await settle()
    await subject.close()
    assert [(await task)["y"].item() for task in tasks] == [0, 2, 4, 6, 8]
