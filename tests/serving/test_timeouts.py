"""A request that says how long it will wait for its run, in every way that requests are read and run."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from infold.errors import DeadlineExceededError
from infold.serving import Asked, Batcher, Runners, Work, clock
from infold.serving.plan import Plan
from infold.tensors import Array
from serving.fake_model import FakeModel, batcher, begun, row, settle, work

SOON, LATE = 1e-6, 60.0
JOINED, ALONE = Plan(1, 1, join_rows=64), Plan(1, 1, join_rows=1)
# How a request is read, and whether it shares a run.
WAYS = {
    "read on the loop, joined": (JOINED, True),
    "read on the loop, alone": (ALONE, True),
    "read by a runner, joined": (JOINED, False),
    "read in its run": (ALONE, False),
}


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[Plan, bool]:
    """A plan, and whether a request is read on the loop."""
    found: tuple[Plan, bool] = request.param
    return found


@pytest.fixture
def two() -> Iterator[Runners[Any]]:
    """One runs what there is to run, and the other reads meanwhile."""
    made: Runners[Any] = Runners(2)
    yield made
    made.close()


def asked(count: int, timeout_s: float | None, *, is_cheap: bool = True) -> Work[Array]:
    """A request of so many rows."""
    return work(lambda: Asked({"x": np.ones(count, np.float32)}, None, timeout_s), is_cheap=is_cheap)


async def held_up(subject: Batcher, model: FakeModel) -> asyncio.Task[Array]:
    """A run under way that does not end before the gate is opened."""
    model.gate.clear()
    task = asyncio.create_task(subject.answer(row(1)))
    await settle()
    await begun(subject)
    return task


async def test_a_request_that_waits_longer_than_it_said_is_late_and_never_runs(
    two: Runners[Any], way: tuple[Plan, bool]
) -> None:
    """The others do, and it takes no room any more."""
    plan, is_cheap = way
    model = FakeModel()
    subject = batcher(two, model, plan)
    busy = await held_up(subject, model)
    late = asyncio.create_task(subject.answer(asked(5, SOON, is_cheap=is_cheap)))
    patient = asyncio.create_task(subject.answer(asked(3, LATE, is_cheap=is_cheap)))
    await settle()
    if way != (ALONE, False):  # it is read, so what it says is known while the run before it lasts
        with pytest.raises(DeadlineExceededError):
            await late
    model.gate.set()
    with pytest.raises(DeadlineExceededError):
        await late
    assert (await busy).tolist() == [2]
    assert (await patient).tolist() == [2, 2, 2]
    assert model.batches == [1, 3]
    assert (subject.waiting_rows, subject.in_flight) == (0, 0)
    await subject.close()


async def test_a_long_body_of_which_nobody_knows_yet_that_it_is_late(runners: Runners[Any]) -> None:
    """Every runner is busy until long after: it is read, and not run."""
    model = FakeModel()
    subject = batcher(runners, model, JOINED)
    busy = await held_up(subject, model)
    late = asyncio.create_task(subject.answer(asked(5, SOON, is_cheap=False)))
    await settle()
    assert not late.done()
    model.gate.set()
    await busy
    with pytest.raises(DeadlineExceededError):
        await late
    assert (await subject.answer(row(2, 3))).tolist() == [4, 6]
    assert model.batches == [1, 2]
    await subject.close()


async def test_a_timeout_after_the_service_s_own_deadline_does_not_put_that_off(
    two: Runners[Any], way: tuple[Plan, bool]
) -> None:
    """The earlier of the two counts."""
    plan, is_cheap = way
    model = FakeModel()
    subject = batcher(two, model, plan)
    busy = await held_up(subject, model)
    with pytest.raises(DeadlineExceededError):
        await subject.answer(asked(5, LATE, is_cheap=is_cheap), deadline=clock() + 0.01)
    model.gate.set()
    await busy
    await subject.close()
    assert model.batches == [1]


async def test_what_is_too_late_for_the_service_is_not_run_even_where_the_loop_is_busy(
    runners: Runners[Any], way: tuple[Plan, bool]
) -> None:
    """A request that would wait longer by itself: whoever takes the next run looks at the clock."""
    plan, is_cheap = way
    model = FakeModel()
    subject = batcher(runners, model, plan)
    busy = await held_up(subject, model)
    deadline = clock() + 0.01
    late = asyncio.create_task(subject.answer(asked(5, LATE, is_cheap=is_cheap), deadline))
    await settle()
    while clock() < deadline:  # and the loop turns no more
        pass
    model.gate.set()
    while not runners._sleeping:
        pass
    with pytest.raises(DeadlineExceededError):
        await late
    assert (await busy).tolist() == [2]
    await subject.close()
    assert model.batches == [1]


async def test_once_its_run_has_begun_a_request_is_answered_however_long_that_takes(
    runners: Runners[Any], way: tuple[Plan, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said how long it would wait for its run; that wait is over. The service's deadline still holds."""
    plan, is_cheap = way
    model = FakeModel()
    model.gate.clear()
    subject = batcher(runners, model, plan)
    task = asyncio.create_task(subject.answer(asked(2, LATE, is_cheap=is_cheap), clock() + 10 * LATE))
    await model.entered()
    move_on(monkeypatch, 2 * LATE)
    await settle()
    assert not task.done()
    model.gate.set()
    assert (await task).tolist() == [2, 2]

    model.gate.clear()
    task = asyncio.create_task(subject.answer(asked(2, LATE, is_cheap=is_cheap), clock() + 10 * LATE))
    await model.entered()
    move_on(monkeypatch, 20 * LATE)
    with pytest.raises(DeadlineExceededError):
        await task
    model.gate.set()
    await subject.close()


async def test_a_request_that_is_run_where_it_was_read_waits_for_nothing(runners: Runners[Any]) -> None:
    """However little it would wait."""
    model = FakeModel()
    subject = batcher(runners, model, Plan(1, 1, join_rows=64, inline_rows=8))
    assert (await subject.answer(asked(3, SOON))).tolist() == [2, 2, 2]
    await subject.close()


async def test_a_request_that_leaves_before_its_timeout_leaves_nothing_to_fire(
    two: Runners[Any], way: tuple[Plan, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that it set comes, and nobody is told."""
    plan, is_cheap = way
    model = FakeModel()
    subject = batcher(two, model, plan)
    busy = await held_up(subject, model)
    gone = asyncio.create_task(subject.answer(asked(5, LATE, is_cheap=is_cheap)))
    await settle()
    gone.cancel()
    await settle()
    move_on(monkeypatch, 2 * LATE)
    await settle()
    model.gate.set()
    await busy
    await subject.close()
    assert gone.cancelled()
    assert model.batches == [1]


@pytest.mark.parametrize("timeout_s", [SOON, LATE])
async def test_a_timeout_found_out_by_a_runner_is_no_news_to_who_has_left(
    two: Runners[Any], timeout_s: float
) -> None:
    """The caller goes while its body is read: it does not run, and nothing waits for that time."""
    model = FakeModel()
    subject = batcher(two, model, JOINED)
    reading, go_on, held = threading.Event(), threading.Event(), []

    def decode() -> Asked:
        reading.set()
        go_on.wait(5)
        tensor = np.ones(5, np.float32)
        held.append(weakref.ref(tensor))
        return Asked({"x": tensor}, None, timeout_s)

    gone = asyncio.create_task(subject.answer(work(decode, is_cheap=False)))
    await asyncio.to_thread(reading.wait, 5)
    gone.cancel()
    await settle()
    del gone
    gc.collect()
    gc.disable()
    try:
        go_on.set()
        assert (await subject.answer(row(1))).tolist() == [2]
        while two._sleeping < 2:
            await asyncio.sleep(0.001)
        await settle()
        assert held[0]() is None
    finally:
        gc.enable()
    await subject.close()
    assert model.batches == [1]


def move_on(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the loop's clock be later by so much."""
    real: Callable[[], float] = time.monotonic
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: real() + seconds)
